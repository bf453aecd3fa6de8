"""What all trials need from a job."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from romacli.matchers.matcher import Matcher
from romacli.run.match import Append
from romacli.run.options import MatchOptions
from romacli.store.journal import Journal
from romacli.store.layout import Layout
from romacli.types import ImageList, PairList


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
