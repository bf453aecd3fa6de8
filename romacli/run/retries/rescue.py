"""Pairs that hardly match as they are, begun again from SIFT's matches where these agree on one motion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch

from romacli.errors import EstimationError
from romacli.geometry.epipolar import sampson_error
from romacli.geometry.estimation import estimate_fundamental
from romacli.geometry.warp import cell_centres, decode_targets
from romacli.keypoints.sift import describe_sift
from romacli.matchers.describers.nearest import mutual_nearest
from romacli.matchers.matcher import PointStartMatcher
from romacli.run.retries.retry import WEAK_OVERLAP, RecentFeatures, is_weak, least_overlap
from romacli.types import CompactWarp, Features, Pair, PairResult

# SIFT looks at so many px of the long side and keeps so many keypoints: about a second a photograph on a CPU.
_LONG_SIDE, _KEYPOINTS = 1600, 4000
_RATIO = 0.9
# Photographs of different places agreed on a motion by up to 22 matches, views 85 degrees apart by 90 and more.
_FEWEST_INLIERS = 30
_INLIER_PX = 2.0
# Of the warp that comes out, this share has to follow the motion that SIFT found, within so many px of the long side.
_LEAST_AGREEMENT, _AGREEMENT = 0.8, 0.004


class Rescue:
    """Finds a pair's SIFT matches, and where they verify lets the matcher refine what they say of the warp."""

    def __init__(self, matcher: PointStartMatcher, read: Callable[[str], np.ndarray], *, capacity_bytes: int) -> None:
        """read: gives a photograph upright, RGB uint8 (H, W, 3). capacity_bytes: room for keypoints."""
        self._matcher = matcher
        self._read = read
        self._keypoints = RecentFeatures(self._describe, capacity_bytes)
        self.encodes = 0

    def improve(self, result: PairResult, pair: Pair, features: tuple[Features, Features], seed: int) -> PairResult:
        """The result of a pair, or the one begun by SIFT where that overlaps far more and follows SIFT's motion."""
        if not is_weak(result, WEAK_OVERLAP["rescue"]):
            return result
        verified = self._verified(pair, seed)
        if verified is None:
            return result
        matrix, points = verified
        found = self._matcher.match_from([features], [points], [seed])[0]
        if not isinstance(found, CompactWarp) or found.overlap <= least_overlap(result):
            return result
        return replace(found, found_by="rescue") if _agreement(found, matrix) >= _LEAST_AGREEMENT else result

    def clear(self) -> None:
        """Forget all keypoints."""
        self._keypoints.clear()

    def _verified(self, pair: Pair, seed: int) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]] | None:
        """The fundamental matrix that SIFT's matches agree on, if they do, and those that do."""
        first, second = (self._keypoints[name][0].tensors for name in pair)
        rows = mutual_nearest([first["descriptors"]], [second["descriptors"]], ratio=_RATIO)[0][0]
        points0, points1 = first["xy"][rows[:, 0]].numpy(), second["xy"][rows[:, 1]].numpy()
        try:
            matrix, inliers = estimate_fundamental(points0, points1, max_error_px=_INLIER_PX, seed=seed & 0x7FFFFFFF)
        except EstimationError:
            return None
        if matrix is None or inliers.sum() < _FEWEST_INLIERS:
            return None
        return matrix, (points0[inliers], points1[inliers])

    def _describe(self, name: str) -> Sequence[Features]:
        """SIFT's keypoints of a photograph, in its own px whatever size they are found at; none where it fails."""
        image = self._read(name)
        height, width = image.shape[:2]
        scale = min(1.0, _LONG_SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
        try:
            xy, descriptors = describe_sift(small, _KEYPOINTS)
        except EstimationError:
            xy, descriptors = np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
        xy = (xy * np.array([width / size[0], height / size[1]])).astype(np.float32)
        return [Features({"xy": torch.from_numpy(xy), "descriptors": torch.from_numpy(descriptors)}, (width, height))]


def _agreement(found: CompactWarp, matrix: np.ndarray) -> float:
    """The share of a warp's usable cells that follow a fundamental matrix."""
    used = found.weight_AB > 0
    if not used.any():
        return 0.0
    places = cell_centres(used.shape, found.size_A)[used].astype(np.float64)
    targets = decode_targets(found.target_AB, found.size_B)[used].astype(np.float64)
    limit = _AGREEMENT * max(*found.size_A, *found.size_B)
    return float((sampson_error(matrix, places, targets) < limit).mean())
