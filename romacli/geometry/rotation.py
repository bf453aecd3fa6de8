"""Detection of pure rotation: pairs of views from the same position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from romacli.errors import EstimationError
from romacli.types import Size

# Focal lengths tried, in units of the image's long side.
_FOCAL_LENGTHS = np.geomspace(0.4, 4.0, 60)
# Maximum deviation from an orthogonal matrix for a rotation's homography; a camera that moves by a fiftieth of the
# distance to a plane exceeds it.
_MOST_DEVIATION = 0.015
_FEWEST_INLIERS = 0.9
_FEWEST_POINTS = 8


@dataclass(frozen=True)
class PlanarPair:
    """A homography (3, 3), x1 ~ H x0 in px relative to the image centres, and its share of inliers."""

    homography: np.ndarray
    share: float
    long_side: float


def planar_pair(
    points0: np.ndarray, points1: np.ndarray, size0: Size, size1: Size, *, max_error_px: float
) -> PlanarPair | None:
    """The homography with the most inliers among (N, 2) point pairs in px; None if there is none.

    Raises:
        EstimationError: OpenCV fails on these points.
    """
    if len(points0) < _FEWEST_POINTS:
        return None
    points0, points1 = (
        np.asarray(points, np.float64) - np.array(size) / 2 for points, size in ((points0, size0), (points1, size1))
    )
    try:
        matrix, inliers = cv2.findHomography(points0, points1, cv2.RANSAC, max_error_px, None, 2000, 0.999)
    except cv2.error as error:
        raise EstimationError(f"OpenCV finds no homography: {error}") from error
    if matrix is None or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        return None
    return PlanarPair(matrix, float(inliers.mean()), float(max(*size0, *size1)))


def are_from_one_place(pairs: Sequence[PlanarPair | None]) -> bool:
    """Whether nearly all pairs are explained by a rotating camera of one focal length.

    A plane seen by a moving camera also gives homographies, but these are not rotations at any focal length, or fit
    better the longer it is: if the longest one fits best, the result is False.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 19.4: K R K^-1 of rotating cameras.
    """
    planar = [pair for pair in pairs if pair is not None and pair.share >= _FEWEST_INLIERS]
    if not planar or len(planar) < _FEWEST_INLIERS * len(pairs):
        return False
    deviations = np.array([[_deviation(pair, focal) for focal in _FOCAL_LENGTHS] for pair in planar])
    typical = np.quantile(deviations, 0.9, axis=0)
    best = int(np.argmin(typical))
    return bool(typical[best] < _MOST_DEVIATION and best < len(_FOCAL_LENGTHS) - 1)


def _deviation(pair: PlanarPair, focal: float) -> float:
    """Deviation of K^-1 H K from a rotation: the largest entry of M^T M - I, with M scaled to determinant 1."""
    scale = np.diag([focal * pair.long_side, focal * pair.long_side, 1.0])
    turned = np.linalg.inv(scale) @ pair.homography @ scale
    turned /= np.cbrt(np.linalg.det(turned))
    return float(np.abs(turned.T @ turned - np.eye(3)).max())
