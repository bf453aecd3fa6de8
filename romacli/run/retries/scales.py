"""Retry pairs that hardly match with parts of either photograph enlarged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from romacli.geometry.crops import Box, footprint, halves, uncut
from romacli.matchers.matcher import CoarseMatcher
from romacli.run.options import WEAK_OVERLAP
from romacli.run.retries.recent import RecentFeatures
from romacli.run.retries.retry import is_weak, least_overlap
from romacli.store.record import turned
from romacli.types import CompactWarp, Features, Pair, PairResult

# At the coarse stage, the half with the same content overlapped by 0.62 to 0.72 with copies enlarged by 2.5, the whole
# by 0.06 to 0.53; with copies enlarged by 4 by 0.24 to 0.55; with photographs of other places by up to 0.28. A half
# must exceed the whole by this factor.
_FEWEST_OVERLAP, _CLEAR_GAIN = 0.2, 1.2
# The part must show at least this fraction of the other photograph. Copies showed 0.66 and more, hard rendered pairs
# that gained 0.4 and more, but of seven false ones of unrelated scenes with one motif five up to 0.29.
_LEAST_SHOWN = 0.3
# A part is cropped again if the common content fills less than this share of it, with this margin on each side.
_FILLED, _MARGIN = 0.7, 0.1


class Scales:
    """Compares halves of either photograph at the coarse stage and matches the best one enlarged; twice if it helps."""

    def __init__(self, matcher: CoarseMatcher, read: Callable[[str], np.ndarray], *, capacity_bytes: int) -> None:
        """read: returns an upright photograph, RGB uint8 (H, W, 3). capacity_bytes: memory for features of parts."""
        self._matcher = matcher
        self._read = read
        self._parts = RecentFeatures(self._encode, capacity_bytes)
        self.encodes = 0

    def improve(self, result: PairResult, pair: Pair, features: tuple[Features, Features], seed: int) -> PairResult:
        """Return the result of a pair, or that with a part of a photograph, in the frames of the whole photographs.

        Pairs without any overlap at the coarse stage cost only this check.
        """
        part = self.best_part(pair, features) if is_weak(result, WEAK_OVERLAP["try_scales"]) else None
        if part is None:
            return result
        cut, box = part
        enlarged = self._matched(features[1 - cut], pair[cut], box, seed)
        if enlarged is None or enlarged.overlap <= least_overlap(result):
            return result
        if (enlarged.weight_AB > 0).mean() < _LEAST_SHOWN:
            return result
        return enlarged if cut == 1 else turned(enlarged)

    def best_part(self, pair: Pair, features: tuple[Features, Features]) -> tuple[int, Box] | None:
        """The photograph, 0 or 1, and its half that overlaps clearly more with the other at the coarse stage.

        features: of the whole photographs, of the coarse stage or all. None if no half does.
        """
        whole = self._matcher.overlap([features])[0]
        if whole == 0.0:
            return None
        best, found = 0.0, None
        for side in (0, 1):
            overlaps = self._matcher.overlap([(features[1 - side], part) for part in self._parts[pair[side]]])
            if max(overlaps) > best:
                best, found = max(overlaps), (side, halves(features[side].size)[int(np.argmax(overlaps))])
        return found if best >= max(_FEWEST_OVERLAP, _CLEAR_GAIN * whole) else None

    def clear(self) -> None:
        """Drop all parts."""
        self._parts.clear()

    def _matched(self, whole: Features, name: str, box: Box, seed: int) -> CompactWarp | None:
        """Match a photograph with a part of another, and with a smaller part if only that is visible in the first."""
        image = self._read(name)
        first = self._onto_part(whole, image, box, seed)
        if first is None:
            return None
        closer = footprint(first, _MARGIN)
        if closer is not None and closer.size[0] * closer.size[1] < _FILLED * box.size[0] * box.size[1]:
            second = self._onto_part(whole, image, closer, seed)
            if second is not None and second.overlap > first.overlap:
                return second
        return first

    def _onto_part(self, whole: Features, image: np.ndarray, box: Box, seed: int) -> CompactWarp | None:
        self.encodes += 1
        part = self._matcher.encode([self._matcher.prepare(box.cut(image))])[0]
        result = self._matcher.match([(whole, part)], [seed])[0]
        if not isinstance(result, CompactWarp):
            return None
        return replace(uncut(result, box, (image.shape[1], image.shape[0])), found_by="scale")

    def _encode(self, name: str) -> Sequence[Features]:
        image = self._read(name)
        boxes = halves((image.shape[1], image.shape[0]))
        return self._matcher.encode_coarse([self._matcher.prepare(box.cut(image)) for box in boxes])
