"""A photograph as it is meant to be looked at. Networks see it so; coordinates stay those of the stored pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .decode import read_image
from .metadata import read_metadata

# EXIF's orientations that are turns, as quarters clockwise. The mirrored ones are left as they are stored: nothing
# that is made of a mirrored photograph fits the others.
_QUARTER_TURNS = {3: 2, 6: 1, 8: 3}


def read_upright(path: Path) -> tuple[np.ndarray, int]:
    """Decode a photograph and turn it as its EXIF data asks.

    Returns:
        (H, W, 3) uint8 RGB, and the quarter turns clockwise that were made.

    Raises:
        ImageError: as from `read_image`.
    """
    turns = _QUARTER_TURNS.get(read_metadata(path).orientation, 0)
    image = read_image(path)
    return (np.ascontiguousarray(np.rot90(image, -turns)) if turns else image), turns
