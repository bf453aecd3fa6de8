"""Retry weak pairs from sparse matches, if these agree on one epipolar geometry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from romacli.errors import EstimationError
from romacli.geometry.epipolar import sampson_error
from romacli.geometry.estimation import estimate_fundamental
from romacli.geometry.warp import cell_centres, decode_targets
from romacli.matchers.matcher import PointStartMatcher
from romacli.run.retries.retry import is_weak, least_overlap
from romacli.run.retries.sparse import PointPairs, SparseMatches
from romacli.types import CompactWarp, Features, Pair, PairResult

# SIFT on photographs of different places gives up to 22 inliers; on views 85 degrees apart, 90 and more.
_FEWEST_INLIERS = 30
_INLIER_PX = 2.0
# Share of --min-overlap that suffices here, as the sparse matches confirm the pair.
_ENOUGH = 0.25
# Minimum fraction of the new warp that agrees with the epipolar geometry of the sparse matches, and the maximum error
# of agreement, as a fraction of the long side.
_LEAST_AGREEMENT, _AGREEMENT = 0.8, 0.004


class Rescue:
    """Starts the matcher's refiners from sparse matches that pass geometric verification."""

    def __init__(self, matcher: PointStartMatcher, sparse: SparseMatches, weak_overlap: float) -> None:
        """weak_overlap: pairs that overlap by less are retried."""
        self._matcher = matcher
        self._sparse = sparse
        self._weak_overlap = weak_overlap
        self._enough = _ENOUGH * matcher.settings.get("min_overlap", 0.0)
        self.encodes = 0

    def improve(self, result: PairResult, pair: Pair, features: tuple[Features, Features], seed: int) -> PairResult:
        """The result of a pair, or a new one with far more overlap that agrees with the sparse matches."""
        if not is_weak(result, self._weak_overlap):
            return result
        verified = verify(self._sparse.find(pair, (features[0].size, features[1].size)), seed)
        if verified is None:
            return result
        matrix, points = verified
        found = self._matcher.match_from([features], [points])[0]
        if found.overlap < self._enough or found.overlap <= least_overlap(result):
            return result
        return replace(found, found_by="rescue") if _agreement(found, matrix) >= _LEAST_AGREEMENT else result

    def clear(self) -> None:
        """Drop all keypoints."""
        self._sparse.clear()


def verify(points: PointPairs, seed: int) -> tuple[np.ndarray, PointPairs] | None:
    """The fundamental matrix of point pairs in px and its inliers; None if there are too few to be trusted."""
    try:
        matrix, inliers = estimate_fundamental(*points, max_error_px=_INLIER_PX, seed=seed & 0x7FFFFFFF)
    except EstimationError:
        return None
    if matrix is None or inliers.sum() < _FEWEST_INLIERS:
        return None
    return matrix, (points[0][inliers], points[1][inliers])


def _agreement(found: CompactWarp, matrix: np.ndarray) -> float:
    """The fraction of a warp's usable cells that agree with a fundamental matrix."""
    used = found.weight_AB > 0
    if not used.any():
        return 0.0
    places = cell_centres(used.shape, found.size_A)[used].astype(np.float64)
    targets = decode_targets(found.target_AB, found.size_B)[used].astype(np.float64)
    limit = _AGREEMENT * max(*found.size_A, *found.size_B)
    return float((sampson_error(matrix, places, targets) < limit).mean())
