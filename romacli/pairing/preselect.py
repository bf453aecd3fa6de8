"""Select the overlapping pairs among many candidates with the coarse stage alone, before matching."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from romacli.errors import NothingFoundError, UsageError
from romacli.matchers.matcher import CoarseMatcher, Matcher, kept_settings
from romacli.pairing.kept import match_kept
from romacli.progress import Progress
from romacli.run.options import MatchOptions
from romacli.types import Features, ImageList, PairList, PairResult, PreparedImage, Rejected
from romacli.words import counted, counted_of


class CoarseStage:
    """The coarse stage of a matcher, as a matcher that returns only the overlap of each pair."""

    def __init__(self, matcher: CoarseMatcher) -> None:
        self.name = matcher.name
        self.batch_size = getattr(matcher, "coarse_batch_size", matcher.batch_size)
        self._matcher = matcher

    @property
    def settings(self) -> dict[str, Any]:
        """The settings without thresholds, as scores do not depend on what is rejected later."""
        return {**kept_settings(self._matcher), "min_overlap": None, "min_coarse_overlap": None, "stage": "coarse"}

    def prepare(self, image: np.ndarray) -> PreparedImage:
        return self._matcher.prepare(image)

    def encode(self, images: Sequence[PreparedImage]) -> list[Features]:
        return self._matcher.encode_coarse(images)

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[PairResult]:
        return [Rejected(overlap) for overlap in self._matcher.overlap(pairs)]


def preselect(
    images: ImageList,
    candidates: PairList,
    matcher: Matcher,
    folder: Path,
    *,
    min_overlap: float,
    options: MatchOptions,
    progress: Progress,
) -> PairList:
    """Keep the candidates whose images overlap, as judged by the coarse stage.

    Scores are kept in a journal, so a stopped run resumes from there. Pairs with unreadable photographs are kept, for
    matching to report.

    Args:
        folder: contains the journals of scores, one folder per combination of settings.
        min_overlap: minimum overlap of a kept pair, in [0, 1].

    Raises:
        UsageError: the matcher's coarse stage cannot run alone.
        NothingFoundError: no candidate overlaps.
    """
    if not isinstance(matcher, CoarseMatcher):
        raise UsageError(f"--preselect runs a matcher's coarse stage alone, but '{matcher.name}' has none. Try mini.")
    journal, _ = match_kept(folder, images, candidates, CoarseStage(matcher), options, progress, title="preselecting")
    with journal:
        overlap = {pair: journal.overlap(pair) for pair in candidates.pairs if pair in journal}
    kept = tuple(pair for pair in candidates.pairs if (overlap.get(pair) or 0.0) >= min_overlap or pair not in overlap)
    if not kept:
        raise NothingFoundError(
            f"none of {counted(len(candidates), 'candidate pair')} overlaps by {min_overlap:g} or more "
            "at the coarse stage. Lower --min-coarse-overlap, or leave out --preselect."
        )
    progress.say(counted_of(len(kept), len(candidates), "candidate pair", "overlaps", "overlap"))
    return PairList(kept)
