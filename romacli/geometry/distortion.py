"""Fundamental matrices of distorted images, for many pairs at once.

Distortion is one number d: the ray of a point (x, y) from the centre goes through (x, y, 1 + d (x^2 + y^2)). Source:
Fitzgibbon, Simultaneous linear estimation of multiple view geometry and lens distortion, CVPR 2001.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 4
# A typical coordinate, in long sides, to balance the rows and columns of the equations.
_TYPICAL = 0.35


def fit_fundamental(points: np.ndarray, distortion: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Fundamental matrices by the eight-point algorithm, reweighted so that wrong matches count little.

    Args:
        points: (N, 2, M, 2) matches of N pairs, in long sides from the image centres. distortion: per long side
            squared, one number for all or (N, 2, 1) for both images of each pair.

    Returns:
        F (N, 3, 3) between undistorted points, x1^T F x0 = 0, of unit norm; (N, M) Sampson errors of the points where
        they are in the pictures, so that values of `distortion` can be compared.
    """
    depth = 1 + distortion * (points**2).sum(axis=-1)
    rays = np.concatenate((points, _TYPICAL * depth[..., None]), axis=-1)
    equations = (rays[:, 1, :, :, None] * rays[:, 0, :, None, :]).reshape(*rays[:, 0].shape[:2], 9)
    weights = np.ones(equations.shape[:2])
    for _ in range(_ROUNDS):
        _, vectors = np.linalg.eigh((equations * weights[..., None]).transpose(0, 2, 1) @ equations)
        left, values, right = np.linalg.svd(vectors[:, :, 0].reshape(-1, 3, 3))
        matrices = (left * (values * [1, 1, 0])[:, None]) @ right
        lines = np.stack((rays[:, 1] @ matrices, rays[:, 0] @ matrices.transpose(0, 2, 1)), axis=1)
        along_depth = (2 * _TYPICAL * distortion * lines[..., 2])[..., None]
        slopes = ((lines[..., :2] + along_depth * points) ** 2).sum(axis=(1, 3)) + 1e-30
        errors = np.abs((lines[:, 1] * rays[:, 1]).sum(axis=-1)) / np.sqrt(slopes)
        scale = 3 * np.median(errors, axis=1, keepdims=True) + 1e-12
        weights = 1 / (slopes * (1 + (errors / scale) ** 2))
        weights /= weights.mean(axis=1, keepdims=True)
    matrices = matrices * np.outer([1, 1, _TYPICAL], [1, 1, _TYPICAL])
    return matrices / np.linalg.norm(matrices, axis=(1, 2), keepdims=True), errors
