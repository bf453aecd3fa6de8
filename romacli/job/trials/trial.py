"""What all trials need from a job, and what they do with it: match some pairs again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from romacli.matchers.matcher import Matcher
from romacli.progress import Progress
from romacli.run.match import Append, MatchSummary, match_images
from romacli.run.options import MatchOptions
from romacli.stop import StopRequest
from romacli.store.journal import Journal
from romacli.store.layout import Layout
from romacli.types import CompactWarp, ImageList, Pair, PairList, PairResult


@dataclass(frozen=True)
class Trial:
    """A job whose pairs are matched. journal: opens it; writing: opens it for appending."""

    layout: Layout
    images: ImageList
    pairs: PairList
    matcher: Matcher
    options: MatchOptions
    journal: Callable[[], Journal]
    writing: Callable[[], AbstractContextManager[Append]]

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
