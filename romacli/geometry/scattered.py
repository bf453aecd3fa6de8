"""Interpolate a warp of the whole image from scattered point pairs."""

from __future__ import annotations

import numpy as np

# Number of nearest pairs that determine a cell's target, weighted by 1 / (distance^2 + _SOFT^2); distances are
# normalised, with 2 the width of the image.
_NEAREST, _SOFT = 6, 0.02
# Regularises the local affine map towards a translation, for nearest pairs along a line.
_STIFFNESS = 0.02


def spread(here: np.ndarray, there: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate a warp through point pairs, with the distance of its cells from them.

    Args:
        here, there: (N, 2) normalised, N at least six.

    Returns:
        (side, side, 2) normalised targets of the cells' centres; (side, side) distances to the second nearest point.
    """
    centres = (np.arange(side) + 0.5) / side * 2 - 1
    cells = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    distances = np.linalg.norm(cells[:, None] - here[None], axis=-1)  # (side^2, N)
    nearest = np.argpartition(distances, _NEAREST - 1, axis=1)[:, :_NEAREST]
    near = np.take_along_axis(distances, nearest, axis=1)
    weights = 1 / (near**2 + _SOFT**2)
    weights /= weights.sum(axis=1, keepdims=True)
    # An affine map (x, y, 1) to target for every cell, by a small least-squares problem each.
    offsets = here[nearest] - cells[:, None]
    known = np.concatenate((offsets, np.ones((*near.shape, 1))), axis=-1)
    normal = np.einsum("nki,nk,nkj->nij", known, weights, known) + _STIFFNESS * np.diag([1, 1, 0])
    right = np.einsum("nki,nk,nkj->nij", known, weights, there[nearest]) + _STIFFNESS * np.eye(3, 2)
    targets = np.linalg.solve(normal, right)[:, 2]
    return targets.reshape(side, side, 2), np.partition(near, 1, axis=1)[:, 1].reshape(side, side)
