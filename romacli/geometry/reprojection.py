"""Reprojection between pinhole cameras."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .warp import cell_centres

Floats = NDArray[np.floating]


def reproject(
    inverse_depth: NDArray[np.float32], K_A: Floats, K_B: Floats, *, rotation: Floats, translation: Floats
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the projection of each pixel of A into B, x_B ~ K_B (R d K_A^-1 x_A + t).

    Args:
        inverse_depth: (H, W) 1 / d of A's pixels, along the optical axis; 0 if unknown.
        K_A, K_B: (3, 3) intrinsics in COLMAP pixels, with (0, 0, 1) as last row.
        rotation, translation: (3, 3) and (3,), camB_from_camA.

    Returns:
        (H, W, 2) x and y in COLMAP pixels of B, and (H, W) the inverse depth in B; 0, with a meaningless position,
        where A's is unknown or the point is behind B.
    """
    rays = (K_B @ rotation @ np.linalg.inv(K_A)).astype(np.float32)
    shift = (K_B @ translation).astype(np.float32)
    height, width = inverse_depth.shape
    u, v = np.moveaxis(cell_centres((height, width), (width, height)), -1, 0)
    # z in B as a multiple of z in A.
    x, y, z = (rays[i, 0] * u + rays[i, 1] * v + rays[i, 2] + shift[i] * inverse_depth for i in range(3))
    in_front = (z > 1e-4) & (inverse_depth > 0)
    z = np.where(in_front, z, np.float32(1))
    return np.stack((x / z, y / z), axis=-1), np.where(in_front, inverse_depth / z, np.float32(0))
