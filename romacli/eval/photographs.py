"""Generated photographs for measuring speed: crops that move across one picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from romacli.synthetic.textures import clutter

WIDTH, HEIGHT = 640, 480
PICTURE_PX = 1024


def generate_photographs(folder: Path, count: int) -> Path:
    """Write `count` overlapping PNG files, always the same, and return the folder."""
    picture = clutter(np.random.default_rng(0), PICTURE_PX)
    for index, share in enumerate(np.linspace(0, 1, count)):
        x, y = (round(share * (PICTURE_PX - side) / 2) for side in (WIDTH, HEIGHT))
        view = np.ascontiguousarray(picture[y : y + HEIGHT, x : x + WIDTH, ::-1])
        cv2.imwrite(str(folder / f"{index:03}.png"), view)
    return folder
