"""Conversions between normalised, COLMAP and hloc pixel coordinates; the only place with half pixels.

Normalised coordinates are x, y in [-1, 1] over the image area: -1 and 1 are the outer edges (align_corners=False).
COLMAP places (0.5, 0.5) at the centre of the top-left pixel, hloc (0, 0).
All functions accept numpy arrays and torch tensors of shape (..., 2).
"""

from __future__ import annotations

from typing import Any

HALF_PIXEL = 0.5


def _like(xy: Any, values: tuple[float, float]) -> Any:
    """The two values as an array of xy's kind, dtype and device."""
    if hasattr(xy, "new_tensor"):
        return xy.new_tensor(values)
    import numpy as np

    return np.asarray(values, dtype=xy.dtype)


def to_colmap_pixels(xy: Any, size: tuple[int, int]) -> Any:
    """Convert normalised coordinates to COLMAP pixels.

    Args:
        xy: (..., 2) in [-1, 1].
        size: (width, height) in px.

    Returns:
        (..., 2) x, y in px, where (0.5, 0.5) is the centre of the top-left pixel.
    """
    return (xy + 1) * _like(xy, (size[0] / 2, size[1] / 2))


def from_colmap_pixels(xy: Any, size: tuple[int, int]) -> Any:
    """Convert COLMAP pixels (..., 2) of an image of `size` (width, height) to normalised coordinates."""
    return xy * _like(xy, (2 / size[0], 2 / size[1])) - 1


def colmap_to_hloc(xy: Any) -> Any:
    """Shift COLMAP pixels (..., 2) to hloc's, where (0, 0) is the centre of the top-left pixel."""
    return xy - HALF_PIXEL


def hloc_to_colmap(xy: Any) -> Any:
    """Shift hloc pixels (..., 2) to COLMAP's, as hloc itself does at import."""
    return xy + HALF_PIXEL
