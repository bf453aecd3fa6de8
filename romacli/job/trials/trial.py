"""What all trials need from a job, and what they do with it: match some pairs again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from romacli.errors import RomacliError
from romacli.images.upright import read_upright
from romacli.job.outputs.origins import digest
from romacli.matchers.matcher import Matcher
from romacli.progress import Progress
from romacli.run.match import Append, MatchSummary, match_images
from romacli.run.options import MatchOptions
from romacli.stop import StopRequest
from romacli.store.images import KnownImage
from romacli.store.journal import Journal
from romacli.store.layout import Layout
from romacli.types import CompactWarp, ImageList, Pair, PairList, PairResult, canonical

Of = TypeVar("Of")


def finished_pairs(pairs: PairList, journal: Journal) -> list[Pair]:
    """The pairs of a job that are in its journal, in the same order whatever that of the list."""
    return sorted((pair for pair in pairs.pairs if pair in journal), key=canonical)


def finished_digest(finished: Iterable[Pair], known: Mapping[str, KnownImage]) -> str:
    """A digest that changes when other pairs are finished, or these on photographs that were replaced."""
    pairs = [canonical(pair) for pair in finished]
    names = sorted({name for pair in pairs for name in pair} & known.keys())
    # Further stamps are of copies.
    return digest([pairs, [[name, known[name].stamps[0]] for name in names]])


@dataclass(frozen=True)
class Trial:
    """A job whose pairs are matched.

    known: its photographs as recorded; journal: opens it; writing: opens it for appending.
    """

    layout: Layout
    images: ImageList
    known: Mapping[str, KnownImage]
    pairs: PairList
    matcher: Matcher
    options: MatchOptions
    journal: Callable[[], Journal]
    writing: Callable[[], AbstractContextManager[Append]]

    def read(self, name: str) -> np.ndarray:
        """A photograph, upright, RGB uint8 (H, W, 3)."""
        return read_upright(self.images.root / name)[0]

    def those_that_gain(
        self, tried: Sequence[Of], gains: Callable[[Of], bool], title: str, progress: Progress, stop: StopRequest
    ) -> list[Of]:
        """What gains by a trial; unreadable photographs, which were reported before, do not."""
        progress.begin(title, len(tried))
        found = []
        for each in tried:
            with stop.at_once(), suppress(RomacliError):
                if gains(each):
                    found.append(each)
            progress.advance()
        return found

    def match_again(
        self,
        pairs: Sequence[Pair],
        options: MatchOptions,
        gains: Callable[[CompactWarp], bool],
        title: str,
        progress: Progress,
        stop: StopRequest,
    ) -> MatchSummary:
        """Match pairs with other options, and record the warps that gain by them."""
        with self.writing() as append:

            def keep(results: Sequence[tuple[Pair, PairResult]]) -> None:
                append([(pair, warp) for pair, warp in results if isinstance(warp, CompactWarp) and gains(warp)])

            todo = PairList(tuple(pairs))
            return match_images(
                self.images, todo, self.matcher, keep, options, progress=progress, stop=stop, title=title
            )
