"""Two-view geometry: residuals, essential matrices and pose errors."""

from __future__ import annotations

import numpy as np


def _homogeneous(points: np.ndarray) -> np.ndarray:
    return np.column_stack((points, np.ones(len(points))))


def sampson_error(matrix: np.ndarray, points0: np.ndarray, points1: np.ndarray) -> np.ndarray:
    """The Sampson error of point pairs: the first-order distance from an epipolar geometry.

    Args:
        matrix: (3, 3) with x1^T M x0 = 0: F for pixels, E for normalised camera coordinates.
        points0, points1: (N, 2) in the frame of the matrix.

    Returns:
        (N,) distance in the points' unit; infinite where both points are on their epipoles.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd ed., eq. 11.9; its square root.
    """
    residual, slope0, slope1 = _epipolar_terms(matrix, points0, points1)
    slope = np.sqrt(slope0 + slope1)
    return np.divide(np.abs(residual), slope, out=np.full(len(slope), np.inf), where=slope > 0)


def symmetric_epipolar_error(matrix: np.ndarray, points0: np.ndarray, points1: np.ndarray) -> np.ndarray:
    """Sum the squared distances of point pairs from their epipolar lines in both images.

    Args:
        matrix, points0, points1: as for `sampson_error`.

    Returns:
        (N,) in the points' unit squared; infinite where a point is on its epipole.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd ed., eq. 11.10.
    """
    residual, slope0, slope1 = _epipolar_terms(matrix, points0, points1)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = residual**2 * (1 / slope0 + 1 / slope1)
    return np.where(np.minimum(slope0, slope1) > 0, error, np.inf)


def _epipolar_terms(
    matrix: np.ndarray, points0: np.ndarray, points1: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x1^T M x0 and the squared slopes of the epipolar lines in the first and the second image, each (N,)."""
    x0, x1 = _homogeneous(points0), _homogeneous(points1)
    lines1, lines0 = x0 @ matrix.T, x1 @ matrix
    residual = np.einsum("ni,ni->n", x1, lines1)
    return residual, (lines0[:, :2] ** 2).sum(1), (lines1[:, :2] ** 2).sum(1)


def essential_from_pose(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Build the essential matrix [t]x R of cam1_from_cam0 = (R (3, 3), t (3,)), with x1^T E x0 = 0."""
    x, y, z = translation
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation


def rotation_angle_deg(rotation: np.ndarray) -> float:
    """Return the angle of a rotation matrix (3, 3) in degrees, in [0, 180]."""
    sine = np.linalg.norm((rotation - rotation.T)[[2, 0, 1], [1, 2, 0]])
    return float(np.degrees(np.arctan2(sine, np.trace(rotation) - 1)))


def relative_pose_error(
    rotation: np.ndarray, translation: np.ndarray, *, true_rotation: np.ndarray, true_translation: np.ndarray
) -> tuple[float, float]:
    """Compare a relative pose with the truth: (rotation, direction of translation) in degrees.

    Args:
        rotation, true_rotation: (3, 3), cam1_from_cam0.
        translation, true_translation: (3,), of any length: two views do not fix the scale.

    Returns:
        Angles in [0, 180]; the second is 180 if a translation is zero, so that its direction is unknown.
    """
    lengths = np.linalg.norm(translation) * np.linalg.norm(true_translation)
    if lengths == 0:
        return rotation_angle_deg(rotation.T @ true_rotation), 180.0
    sine = np.linalg.norm(np.cross(translation, true_translation))
    direction = np.degrees(np.arctan2(sine, translation @ true_translation))
    return rotation_angle_deg(rotation.T @ true_rotation), float(direction)
