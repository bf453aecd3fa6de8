"""Photographs of one textured plane with known homographies, and the matcher that knows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from support.homography import HomographyMatcher, image_digest

SIZE = (320, 240)


@dataclass(frozen=True)
class PlanePhotographs:
    """`plane_from_image`: a 3x3 matrix in COLMAP pixels for each name; `by_digest`: the same for each image digest."""

    root: Path
    names: tuple[str, ...]
    plane_from_image: dict[str, np.ndarray]
    by_digest: dict[str, np.ndarray]
    matcher: HomographyMatcher


def photograph_plane(root: Path, names: list[str], *, seed: int = 0, step: float = 30.0) -> PlanePhotographs:
    """Write PNG photographs that move along a plane by `step` px each, slightly rotated."""
    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (700, 1200, 3), np.uint8), (0, 0), 1.5)
    matrices, by_digest = {}, {}
    for index, name in enumerate(names):
        angle = np.deg2rad(rng.uniform(-4, 4))
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = np.array([[cos, -sin, 150 + step * index], [sin, cos, 200], [0, 0, 1.0]])
        to_index = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]])
        warp = to_index @ matrix @ np.linalg.inv(to_index)
        image = cv2.warpPerspective(texture, warp, SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
        matrices[name], by_digest[image_digest(image)] = matrix, matrix
    return PlanePhotographs(root, tuple(names), matrices, by_digest, HomographyMatcher(by_digest))
