"""The interface of outputs: their files, and how these are checked and rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from romacli.progress import Progress
from romacli.stop import StopRequest
from romacli.store.layout import Layout


@dataclass(frozen=True)
class Fault:
    """A fault in a file, and the advice given when `check` does not repair it."""

    path: Path
    sentence: str
    remedy: str


@dataclass(frozen=True)
class Mending:
    """The result of repairing a fault."""

    fault: Fault
    done: str
    is_repaired: bool


@dataclass(frozen=True)
class Output:
    """A row of the table of outputs.

    files: those that the job owns and `--overwrite` removes; folders with all that is in them.
    checked: those that exist are read to their last byte by `faults`, which returns what is wrong with them.
    mend: puts faulty files aside or removes them and makes them anew, as they were made; None where that takes a
    command of its own.
    """

    name: str
    files: Callable[[Layout], Sequence[Path]]
    checked: Callable[[Layout], Sequence[Path]]
    faults: Callable[[Layout, Progress], list[Fault]]
    mend: Callable[[Layout, Sequence[Fault], Progress, StopRequest], Iterator[Mending]] | None = None
