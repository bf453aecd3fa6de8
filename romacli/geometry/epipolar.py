"""Two views of a rigid scene: residuals, essential matrices, pose errors and their robust estimation.

Knows points and matrices only, no cameras, images or databases.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from romacli.errors import EstimationError

MIN_POINTS_FUNDAMENTAL = 8
MIN_POINTS_ESSENTIAL = 6


def _homogeneous(points: np.ndarray) -> np.ndarray:
    return np.column_stack((points, np.ones(len(points))))


def sampson_error(matrix: np.ndarray, points0: np.ndarray, points1: np.ndarray) -> np.ndarray:
    """Measure how far point pairs lie from an epipolar geometry, to first order.

    Args:
        matrix: (3, 3) with x1^T M x0 = 0: F for pixels, E for normalised camera coordinates.
        points0, points1: (N, 2) in the frame of the matrix.

    Returns:
        (N,) distance in the points' unit; infinite where both points lie on their epipoles.

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
        (N,) in the points' unit squared; infinite where a point lies on its epipole.

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
        Angles in [0, 180]; the second is 180 where one translation is zero and its direction unknown.
    """
    lengths = np.linalg.norm(translation) * np.linalg.norm(true_translation)
    if lengths == 0:
        return rotation_angle_deg(rotation.T @ true_rotation), 180.0
    sine = np.linalg.norm(np.cross(translation, true_translation))
    direction = np.degrees(np.arctan2(sine, translation @ true_translation))
    return rotation_angle_deg(rotation.T @ true_rotation), float(direction)


def _ransac(score: int, local_optimisation: int, *, max_error: float, max_trials: int, seed: int) -> cv2.UsacParams:
    """Settings of OpenCV's RANSAC framework with a seed of our own; its flags always start from the same one."""
    params = cv2.UsacParams()
    params.score, params.loMethod = score, local_optimisation
    params.threshold = max_error
    params.confidence = 0.999
    params.maxIterations = max_trials
    params.randomGeneratorState = seed
    return params


@contextmanager
def _estimating(what: str) -> Iterator[None]:
    """Turn what OpenCV raises on some points into an error that costs these points alone."""
    try:
        yield
    except cv2.error as error:
        raise EstimationError(f"OpenCV fails to estimate the {what}: {' '.join(str(error).split())}") from error


def _with_inliers(
    matrix: np.ndarray | None, points0: np.ndarray, points1: np.ndarray, *, threshold: float
) -> tuple[np.ndarray | None, np.ndarray]:
    """The matrix and its inliers by Sampson error; None and no inliers for all of OpenCV's ways of finding none."""
    if matrix is None or matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        return None, np.zeros(len(points0), bool)
    return matrix, sampson_error(matrix, points0, points1) < threshold


def estimate_fundamental(
    points0: np.ndarray, points1: np.ndarray, *, max_error_px: float, seed: int = 0
) -> tuple[np.ndarray | None, np.ndarray]:
    """Find the fundamental matrix most point pairs agree on; the same input and seed give the same answer.

    Args:
        points0, points1: (N, 2) px.
        max_error_px: largest Sampson error of an inlier.

    Returns:
        F (3, 3) with x1^T F x0 = 0, or None where there is none; (N,) bool, the inliers.

    Raises:
        EstimationError: OpenCV fails on these points.

    Source: Barath et al., MAGSAC++, CVPR 2020, in OpenCV's USAC.
    """
    if len(points0) < MIN_POINTS_FUNDAMENTAL:
        return None, np.zeros(len(points0), bool)
    points0, points1 = np.asarray(points0, np.float64), np.asarray(points1, np.float64)
    # Of OpenCV's five local optimisations the iterated one finds the motion most often at 80 % outliers.
    params = _ransac(
        cv2.SCORE_METHOD_MAGSAC,
        cv2.LOCAL_OPTIM_INNER_AND_ITER_LO,
        max_error=max_error_px,
        max_trials=10_000,
        seed=seed,
    )
    with _estimating("fundamental matrix"):
        matrix, _ = cv2.findFundamentalMat(points0, points1, params)
    return _with_inliers(matrix, points0, points1, threshold=max_error_px)


def estimate_essential(
    points0: np.ndarray, points1: np.ndarray, *, max_error: float, seed: int = 0
) -> tuple[np.ndarray | None, np.ndarray]:
    """Find the essential matrix most point pairs agree on; the same input and seed give the same answer.

    Args:
        points0, points1: (N, 2) normalised camera coordinates (x / z, y / z), undistorted.
        max_error: largest Sampson error of an inlier, in the same unit: pixels divided by the focal length.

    Returns:
        E (3, 3) with x1^T E x0 = 0, or None where there is none; (N,) bool, the inliers.

    Raises:
        EstimationError: OpenCV fails on these points.
    """
    if len(points0) < MIN_POINTS_ESSENTIAL:
        return None, np.zeros(len(points0), bool)
    points0, points1 = np.asarray(points0, np.float64), np.asarray(points1, np.float64)
    # On normalised points OpenCV's MAGSAC score is several times less accurate than MSAC. Five points need fewer
    # trials than F's seven: 3000 find a motion with 30 % inliers.
    params = _ransac(cv2.SCORE_METHOD_MSAC, cv2.LOCAL_OPTIM_INNER_LO, max_error=max_error, max_trials=3000, seed=seed)
    camera = np.eye(3)
    with _estimating("essential matrix"):
        matrix, _ = cv2.findEssentialMat(points0, points1, camera, camera, None, None, params)
    return _with_inliers(matrix, points0, points1, threshold=max_error)


def pose_from_essential(matrix: np.ndarray, points0: np.ndarray, points1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose, of the four poses in an essential matrix, the one with most points in front of both cameras.

    Args:
        matrix: E (3, 3) with x1^T E x0 = 0.
        points0, points1: (N, 2) normalised camera coordinates of its inliers.

    Returns:
        rotation (3, 3) and translation (3,) of unit length, cam1_from_cam0.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 9.6.3.
    """
    points0, points1 = np.asarray(points0, np.float64), np.asarray(points1, np.float64)
    with _estimating("pose"):
        _, rotation, translation, _ = cv2.recoverPose(matrix, points0, points1, np.eye(3))
    return rotation, translation.ravel()
