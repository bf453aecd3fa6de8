"""One of several processes that match pieces of a job, each with its own matcher and its own journal file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import load_matcher
from romacli.progress import Silent
from romacli.run.match import MatchSummary, match_images
from romacli.run.options import MatchOptions
from romacli.stop import StopRequest
from romacli.store.images import Stamp
from romacli.store.journal import JournalWriter
from romacli.types import ImageList, Pair, PairList


@dataclass(frozen=True)
class WorkerSetup:
    """The settings a process needs before it gets pairs. `stamps` are those of the photographs, by name; `retries`
    those enabled after the job was created."""

    images: ImageList
    journal: Path
    fingerprint: str
    stamps: dict[str, Stamp]
    model: str
    matcher: MatcherOptions
    match: MatchOptions
    retries: tuple[str, ...]
    expected: int

    def sharing(self, processes: int) -> WorkerSetup:
        """This setup on devices shared by this many processes."""
        return replace(self, match=replace(self.match, processes=processes))


class Worker:
    """A matcher and a journal file, kept across pieces."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._matcher = load_matcher(setup.model, setup.matcher)
        made_with = (setup.journal, setup.fingerprint)
        self._writer = JournalWriter(*made_with, stamps=setup.stamps, tried=setup.retries, expected=setup.expected)

    def run(
        self, pairs: Sequence[Pair], *, advance: Callable[[int], None] = lambda _: None, stop: StopRequest | None = None
    ) -> MatchSummary:
        """Match pairs; on return they are on disk."""
        summary = match_images(
            self._setup.images,
            PairList(tuple(pairs)),
            self._matcher,
            self._writer.append,
            self._setup.match,
            progress=_Advance(advance),
            stop=stop,
        )
        self._writer.sync()
        return summary


class _Advance(Silent):
    """Forwards only the number of finished pairs; the summary has the rest."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance

    def advance(self, count: int = 1) -> None:
        self._advance(count)
