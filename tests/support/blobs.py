"""Photographs of a surface with enough detail for SIFT."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIZE = (320, 240)


def save(folder: Path, name: str, seed: int, shift: tuple[int, int]) -> None:
    """A part of a surface of blobs, given by the seed of its texture and the position of the crop."""
    rng = np.random.default_rng(seed)
    paint = np.full((400, 500), 128, np.uint8)
    for _ in range(900):
        place, radius = rng.integers(0, (500, 400)), int(rng.integers(2, 9))
        cv2.circle(paint, (int(place[0]), int(place[1])), radius, int(rng.integers(0, 256)), -1)
    x, y = shift
    cv2.imwrite(str(folder / name), paint[y : y + SIZE[1], x : x + SIZE[0]])
