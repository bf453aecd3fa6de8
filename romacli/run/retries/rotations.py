"""Retry pairs that hardly match with one photograph rotated by quarter turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from romacli.geometry.turns import turn_image
from romacli.matchers.matcher import Matcher
from romacli.run.options import WEAK_OVERLAP
from romacli.run.retries.recent import RecentFeatures
from romacli.run.retries.retry import is_weak, least_overlap
from romacli.types import CompactWarp, Features, Pair, PairResult, Rejected

QUARTERS = (1, 2, 3)


class Rotations:
    """Tries the second photograph of a pair at 90, 180 and 270 degrees; rotated features are kept for other pairs."""

    def __init__(self, matcher: Matcher, read: Callable[[str], np.ndarray], *, capacity_bytes: int) -> None:
        """read: returns an upright photograph, RGB uint8 (H, W, 3). capacity_bytes: memory for rotated features."""
        self._matcher = matcher
        self._read = read
        self._turned = RecentFeatures(self._encode, capacity_bytes)
        self.encodes = 0

    def improve(self, result: PairResult, pair: Pair, features: tuple[Features, Features], seed: int) -> PairResult:
        """Return the result of a pair, or that with B rotated, in the rotated frame, if it overlaps far more.

        If all are rejected, as they always are by a coarse stage alone, the largest overlap is returned.
        """
        if not is_weak(result, WEAK_OVERLAP["try_rotations"]):
            return result
        turned = self._turned[pair[1]]
        found = self._matcher.match([(features[0], each) for each in turned], [seed] * len(turned))
        best, least = result, least_overlap(result)
        for turns, other in zip(QUARTERS, found, strict=True):
            if isinstance(other, CompactWarp) and other.overlap > least:
                best, least = replace(other, quarter_turns=turns), other.overlap
            elif isinstance(other, Rejected) and isinstance(best, Rejected) and other.overlap > best.overlap:
                best = other
        return best

    def clear(self) -> None:
        """Drop all rotated photographs."""
        self._turned.clear()

    def _encode(self, name: str) -> Sequence[Features]:
        image = self._read(name)
        self.encodes += len(QUARTERS)
        return self._matcher.encode([self._matcher.prepare(turn_image(image, turns)) for turns in QUARTERS])
