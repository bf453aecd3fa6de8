"""The hloc files after their creation is interrupted."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.plane import SIZE, photograph_plane

from romacli.job.outputs.hloc import HlocSources, derive_hloc
from romacli.keypoints.options import AggregateOptions
from romacli.pairs.exhaustive import exhaustive
from romacli.progress import Silent
from romacli.run.match import match_images
from romacli.run.options import MatchOptions
from romacli.stop import Stopped, StopRequest
from romacli.store.journal import Journal, JournalWriter
from romacli.store.layout import Layout
from romacli.types import ImageList

NAMES = ["0.png", "1.png", "2.png"]


class SignalAt(Silent):
    """Sends a signal when a stage begins, and records which stages began."""

    def __init__(self, title: str, stop: StopRequest) -> None:
        self._title, self._stop = title, stop
        self.begun: list[str] = []

    def begin(self, title: str, total: int) -> None:
        self.begun.append(title)
        if title == self._title:
            self._stop.set(signal.SIGINT)


@pytest.mark.parametrize("title", ["reading pairs", "growing tracks", "averaging keypoints"])
def test_signal_ends_the_aggregation_where_it_is(tmp_path: Path, title: str) -> None:
    photographs = photograph_plane(tmp_path / "photos", NAMES)
    layout, pairs, stop = Layout(tmp_path / "job"), exhaustive(NAMES), StopRequest()
    with JournalWriter(layout.journal, "settings") as writer:
        match_images(
            ImageList(photographs.root, photographs.names), pairs, photographs.matcher, writer.append, MatchOptions()
        )
    progress = SignalAt(title, stop)
    with Journal(layout.journal) as journal:
        sources = HlocSources(journal, pairs, dict.fromkeys(NAMES, SIZE), AggregateOptions())
        with pytest.raises(Stopped):
            derive_hloc(layout, sources, progress, stop)
    assert progress.begun[-1] == title
    assert not layout.features.exists()
