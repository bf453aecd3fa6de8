"""Robust estimation of epipolar geometry by OpenCV's RANSAC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import cv2
import numpy as np

from romacli.errors import EstimationError
from romacli.geometry.epipolar import sampson_error

MIN_POINTS_FUNDAMENTAL = 8
MIN_POINTS_ESSENTIAL = 6
# Seeds by which OpenCV is tried before its failure counts, and the largest one that it takes.
_SEEDS, _LARGEST_SEED = 5, 0x7FFFFFFF


def _ransac(score: int, local_optimisation: int, *, max_error: float, max_trials: int, seed: int) -> cv2.UsacParams:
    """Settings of OpenCV's RANSAC framework with a given seed; its flags always use the same one."""
    params = cv2.UsacParams()
    params.score, params.loMethod = score, local_optimisation
    params.threshold = max_error
    params.confidence = 0.999
    params.maxIterations = max_trials
    params.randomGeneratorState = seed
    return params


@contextmanager
def _estimating(what: str) -> Iterator[None]:
    """Turn OpenCV's exceptions into an error that affects only these points."""
    try:
        yield
    except cv2.error as error:
        raise EstimationError(f"OpenCV fails to estimate the {what}: {' '.join(str(error).split())}") from error


def _with_some_seed(
    params: cv2.UsacParams, find: Callable[[cv2.UsacParams], np.ndarray | None], what: str
) -> np.ndarray | None:
    """The matrix by the first of a few seeds on which OpenCV does not fail, as it does on points of one plane."""
    for _ in range(_SEEDS - 1):
        with suppress(cv2.error):
            return find(params)
        params.randomGeneratorState = (params.randomGeneratorState + 1) & _LARGEST_SEED
    with _estimating(what):
        return find(params)


def _with_inliers(
    matrix: np.ndarray | None, points0: np.ndarray, points1: np.ndarray, *, threshold: float
) -> tuple[np.ndarray | None, np.ndarray]:
    """The matrix and its inliers by Sampson error; None and no inliers if OpenCV found none."""
    if matrix is None or matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        return None, np.zeros(len(points0), bool)
    return matrix, sampson_error(matrix, points0, points1) < threshold


def estimate_fundamental(
    points0: np.ndarray, points1: np.ndarray, *, max_error_px: float, seed: int = 0
) -> tuple[np.ndarray | None, np.ndarray]:
    """Estimate the fundamental matrix with the most inliers, deterministically.

    Args:
        points0, points1: (N, 2) px.
        max_error_px: maximum Sampson error of an inlier.

    Returns:
        F (3, 3) with x1^T F x0 = 0, or None if there is none; (N,) bool, the inliers.

    Raises:
        EstimationError: OpenCV fails on these points.

    Source: Barath et al., MAGSAC++, CVPR 2020, in OpenCV's USAC.
    """
    if len(points0) < MIN_POINTS_FUNDAMENTAL:
        return None, np.zeros(len(points0), bool)
    points0, points1 = np.asarray(points0, np.float64), np.asarray(points1, np.float64)
    # Of OpenCV's five local optimisations, the iterated one succeeds most often at 80 % outliers.
    params = _ransac(
        cv2.SCORE_METHOD_MAGSAC,
        cv2.LOCAL_OPTIM_INNER_AND_ITER_LO,
        max_error=max_error_px,
        max_trials=10_000,
        seed=seed,
    )
    matrix = _with_some_seed(
        params, lambda params: cv2.findFundamentalMat(points0, points1, params)[0], "fundamental matrix"
    )
    return _with_inliers(matrix, points0, points1, threshold=max_error_px)


def estimate_essential(
    points0: np.ndarray, points1: np.ndarray, *, max_error: float, seed: int = 0
) -> tuple[np.ndarray | None, np.ndarray]:
    """Estimate the essential matrix with the most inliers, deterministically.

    Args:
        points0, points1: (N, 2) normalised camera coordinates (x / z, y / z), undistorted.
        max_error: maximum Sampson error of an inlier, in the same unit: pixels divided by the focal length.

    Returns:
        E (3, 3) with x1^T E x0 = 0, or None if there is none; (N,) bool, the inliers.

    Raises:
        EstimationError: OpenCV fails on these points.
    """
    if len(points0) < MIN_POINTS_ESSENTIAL:
        return None, np.zeros(len(points0), bool)
    points0, points1 = np.asarray(points0, np.float64), np.asarray(points1, np.float64)
    # On normalised points OpenCV's MAGSAC score is several times less accurate than MSAC. Five-point samples need fewer
    # trials than the seven-point samples for F: 3000 find a motion with 30 % inliers.
    params = _ransac(cv2.SCORE_METHOD_MSAC, cv2.LOCAL_OPTIM_INNER_LO, max_error=max_error, max_trials=3000, seed=seed)
    camera = np.eye(3)
    matrix = _with_some_seed(
        params,
        lambda params: cv2.findEssentialMat(points0, points1, camera, camera, None, None, params)[0],
        "essential matrix",
    )
    return _with_inliers(matrix, points0, points1, threshold=max_error)


def pose_from_essential(matrix: np.ndarray, points0: np.ndarray, points1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose, among the four poses of an essential matrix, the one with the most points in front of both cameras.

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
