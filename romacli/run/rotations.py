"""Pairs that hardly match as they are, tried again with one photograph turned by quarters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from romacli.geometry.turns import turn_image
from romacli.matchers.matcher import Matcher
from romacli.types import CompactWarp, Correspondences, Features, PairResult, Rejected

QUARTERS = (1, 2, 3)
# Photographs of a facade overlapped by up to 4 % upside down, by 20 % and more as they should (mini, 6 of them at half
# resolution): a pair above the first is not tried again, one below it has to gain clearly.
_WEAK_OVERLAP = 0.1
_CLEAR_GAIN = 2.0


class Rotations:
    """Tries the second photograph of a pair at 90, 180 and 270 degrees, and keeps what it needs again."""

    def __init__(self, matcher: Matcher, read: Callable[[str], np.ndarray], *, capacity_bytes: int) -> None:
        """read: gives a photograph upright, RGB uint8 (H, W, 3). capacity_bytes: room for turned features."""
        self._matcher = matcher
        self._read = read
        self._capacity_bytes = capacity_bytes
        self._turned: OrderedDict[str, list[Features]] = OrderedDict()
        self.encodes = 0

    def improve(self, result: PairResult, features_A: Features, name_B: str, seed: int) -> PairResult:
        """The result of a pair, or the one with B turned, in the frame of B turned, where that overlaps far more.

        Of pairs that are rejected either way, as all are by a coarse stage alone, the larger overlap counts.
        """
        if isinstance(result, Correspondences) or result.overlap >= _WEAK_OVERLAP:
            return result
        turned = self._features(name_B)
        found = self._matcher.match([(features_A, features) for features in turned], [seed] * len(turned))
        best, least = result, 0.0 if isinstance(result, Rejected) else _CLEAR_GAIN * result.overlap
        for turns, other in zip(QUARTERS, found, strict=True):
            if isinstance(other, CompactWarp) and other.overlap > least:
                best, least = replace(other, quarter_turns=turns), other.overlap
            elif isinstance(other, Rejected) and isinstance(best, Rejected) and other.overlap > best.overlap:
                best = other
        return best

    def clear(self) -> None:
        """Forget every turned photograph."""
        self._turned.clear()

    def _features(self, name: str) -> Sequence[Features]:
        if name not in self._turned:
            image = self._read(name)
            prepared = [self._matcher.prepare(turn_image(image, turns)) for turns in QUARTERS]
            self._turned[name] = self._matcher.encode(prepared)
            self.encodes += len(QUARTERS)
            while len(self._turned) > 1 and self._num_bytes() > self._capacity_bytes:
                self._turned.popitem(last=False)
        self._turned.move_to_end(name)
        return self._turned[name]

    def _num_bytes(self) -> int:
        return sum(features.nbytes for turned in self._turned.values() for features in turned)
