"""Evaluate relative poses estimated from matches, on a list of pairs with known poses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from romacli.errors import EstimationError
from romacli.geometry.coordinates import colmap_to_hloc
from romacli.geometry.epipolar import essential_from_pose, relative_pose_error, symmetric_epipolar_error
from romacli.geometry.estimation import estimate_essential, pose_from_essential
from romacli.geometry.turns import turn_image, turn_points_back, turn_size
from romacli.images.decode import read_image
from romacli.keypoints.options import AggregateOptions
from romacli.matchers.matcher import Matcher
from romacli.types import Correspondences, Features, Size

from .pose_list import PosedPair
from .statistics import Interval, interval, pose_auc
from .two_view import correspondences, encode, match

THRESHOLDS_DEG = (5.0, 10.0, 20.0)
# Of SuperGlue's evaluation of indoor pairs: squared symmetric epipolar distance in normalised coordinates.
PRECISE_WITHIN = 5e-4
FEATURES_KEPT = 16  # photographs whose features are cached


@dataclass(frozen=True)
class PoseOptions:
    """How poses are estimated.

    Attributes:
        max_error_px: maximum Sampson error of an inlier, divided by the mean focal length; 1 px is SuperGlue's.
        ransac_seeds: number of estimates per pair, to measure their variance.
        seed: of matching, shuffling and the first estimate.
    """

    max_error_px: float = 1.0
    ransac_seeds: int = 5
    seed: int = 0


@dataclass(frozen=True)
class PairScore:
    """The result for one pair.

    Attributes:
        matches: number of point pairs; precision: share that fits the true epipolar geometry, NaN for none.
        errors_deg: (S,) for each seed the larger of the errors of rotation and translation direction; infinite
            without an estimate.
        shuffled_errors_deg: the same with the points of the second photograph permuted.
        inliers, shuffled_inliers: mean inlier ratios of the estimates.
    """

    pair: PosedPair
    matches: int
    precision: float
    errors_deg: np.ndarray
    shuffled_errors_deg: np.ndarray
    inliers: float
    shuffled_inliers: float


@dataclass(frozen=True)
class PoseResult:
    """The figures over all pairs: AUC by threshold in degrees, and the shuffled control."""

    auc: dict[float, Interval]
    shuffled_auc: dict[float, Interval]
    precision: float
    matches: float
    inliers: float
    shuffled_inliers: float
    without_pose: int


def evaluate_pairs(
    matcher: Matcher,
    pairs: Iterable[PosedPair],
    images: Path,
    options: PoseOptions,
    aggregate: AggregateOptions,
    *,
    advance: Callable[[], None] = lambda: None,
) -> list[PairScore]:
    """Match every pair as in a job, and compare the poses estimated from its matches with the truth.

    Raises:
        ImageError: a photograph cannot be read.
    """

    @lru_cache(maxsize=FEATURES_KEPT)
    def features_of(name: str, turns: int) -> Features:
        return encode(matcher, turn_image(read_image(images / name), -turns))

    scores = []
    for pair in pairs:
        first, second = (features_of(*side) for side in zip(pair.names, pair.quarter_turns, strict=True))
        found = correspondences(match(matcher, (first, second), seed=options.seed, names=pair.names), aggregate)
        scores.append(score_pair(pair, found, (first.size, second.size), options))
        advance()
    return scores


def score_pair(pair: PosedPair, found: Correspondences, sizes: tuple[Size, Size], options: PoseOptions) -> PairScore:
    """Compare the poses estimated from point pairs with the truth.

    Args:
        found: in COLMAP pixels of the photographs as matched, with `quarter_turns` applied.
        sizes: (width, height) of the photographs as matched.
    """
    rays = [
        to_rays(turn_points_back(points, turn_size(size, turns), -turns), K)
        for points, turns, size, K in zip(
            (found.keypoints0, found.keypoints1), pair.quarter_turns, sizes, pair.intrinsics, strict=True
        )
    ]
    truth = essential_from_pose(pair.rotation, pair.translation)
    precise = symmetric_epipolar_error(truth, *rays) < PRECISE_WITHIN
    order = np.random.default_rng([options.seed, pair.line]).permutation(len(found))
    errors, inliers = _estimates(pair, rays[0], rays[1], options)
    shuffled_errors, shuffled_inliers = _estimates(pair, rays[0], rays[1][order], options)
    return PairScore(
        pair,
        matches=len(found),
        precision=float(precise.mean()) if len(found) else math.nan,
        errors_deg=errors,
        shuffled_errors_deg=shuffled_errors,
        inliers=inliers,
        shuffled_inliers=shuffled_inliers,
    )


def to_rays(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Convert COLMAP px (N, 2) to normalised camera coordinates; K has (0, 0) at the centre of the top-left pixel."""
    homogeneous = np.column_stack((colmap_to_hloc(points.astype(np.float64)), np.ones(len(points))))
    return (homogeneous @ np.linalg.inv(intrinsics).T)[:, :2]


def _estimates(pair: PosedPair, rays0: np.ndarray, rays1: np.ndarray, options: PoseOptions) -> tuple[np.ndarray, float]:
    focal = np.mean([K[axis, axis] for K in pair.intrinsics for axis in (0, 1)])
    errors, shares = [], []
    for seed in range(options.seed, options.seed + options.ransac_seeds):
        try:
            matrix, inliers = estimate_essential(rays0, rays1, max_error=float(options.max_error_px / focal), seed=seed)
            found = None if matrix is None else pose_from_essential(matrix, rays0[inliers], rays1[inliers])
        except EstimationError:
            inliers, found = np.zeros(len(rays0), bool), None
        shares.append(inliers.mean() if len(inliers) else 0.0)
        if found is None or not inliers.any():
            errors.append(math.inf)
            continue
        errors.append(max(relative_pose_error(*found, true_rotation=pair.rotation, true_translation=pair.translation)))
    return np.array(errors), float(np.mean(shares))


def summarise(scores: Sequence[PairScore]) -> PoseResult:
    """Return the figures of a list."""
    errors, shuffled = (np.stack([getattr(s, name) for s in scores]) for name in ("errors_deg", "shuffled_errors_deg"))
    precisions = [score.precision for score in scores if score.matches]
    return PoseResult(
        auc={t: interval([pose_auc(column, t) for column in errors.T]) for t in THRESHOLDS_DEG},
        shuffled_auc={t: interval([pose_auc(column, t) for column in shuffled.T]) for t in THRESHOLDS_DEG},
        precision=float(np.mean(precisions)) if precisions else math.nan,
        matches=float(np.mean([score.matches for score in scores])),
        inliers=float(np.mean([score.inliers for score in scores])),
        shuffled_inliers=float(np.mean([score.shuffled_inliers for score in scores])),
        without_pose=int(np.isinf(errors).all(axis=1).sum()),
    )
