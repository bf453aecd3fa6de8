"""Matches outside a job, each stored once: a journal per combination of settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from romacli import __version__
from romacli.matchers.matcher import Matcher, kept_settings
from romacli.progress import Progress
from romacli.run.match import MatchSummary, match_images
from romacli.run.options import MatchOptions
from romacli.run.photographs import look_at
from romacli.stop import StopRequest
from romacli.store.journal import Journal, JournalWriter
from romacli.store.manifest import fingerprint
from romacli.types import ImageList, Manifest, PairList


def match_kept(
    folder: Path,
    images: ImageList,
    pairs: PairList,
    matcher: Matcher,
    options: MatchOptions,
    progress: Progress,
    *,
    settings: Mapping[str, Any] | None = None,
    stop: StopRequest | None = None,
    title: str = "matching",
) -> tuple[Journal, MatchSummary]:
    """Match the pairs without a record of the current photographs, and open the journal that contains all.

    Args:
        folder: contains one folder per combination of settings. settings: what results depend on besides the matcher.

    Raises:
        Stopped: by a signal; results so far are kept.
    """
    photographs = look_at(images, {})
    known = {name: (stamp,) for name, stamp in photographs.stamps.items()}
    made_with = fingerprint(Manifest({**kept_settings(matcher), **(settings or {}), **options.retries}, __version__))
    place, summary = folder / made_with[:16], MatchSummary()
    with Journal(place, made_with, stamps=known) as journal:
        todo = PairList(journal.waiting(pairs.pairs))
    if todo.pairs:
        with JournalWriter(place, made_with, stamps=photographs.stamps, expected=len(todo)) as writer:
            match_images(
                *(images, todo, matcher, writer.append, options),
                progress=progress,
                stop=stop,
                title=title,
                summary=summary,
            )
    return Journal(place, made_with, stamps=known), summary
