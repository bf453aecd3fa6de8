"""Upright photographs, as needed by networks; coordinates remain those of the stored pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from romacli.geometry.turns import turn_image

from .decode import read_image
from .metadata import read_metadata

# EXIF orientations that are rotations, as clockwise quarter turns. Mirrored ones are not corrected, as nothing derived
# from a mirrored photograph fits the others.
_QUARTER_TURNS = {3: 2, 6: 1, 8: 3}


def read_upright(path: Path) -> tuple[np.ndarray, int]:
    """Decode a photograph and rotate it according to its EXIF orientation.

    Returns:
        (H, W, 3) uint8 RGB, and the clockwise quarter turns applied.

    Raises:
        ImageError: as from `read_image`.
    """
    turns = _QUARTER_TURNS.get(read_metadata(path).orientation, 0)
    return turn_image(read_image(path), turns), turns
