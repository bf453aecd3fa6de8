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

    files: those that the job owns and `--overwrite` removes; folders with their contents.
    checked: files that `faults` reads completely, if they exist, and reports on.
    mend: moves faulty files aside or removes them, and rebuilds them as they were; None if that takes a command.
    """

    files: Callable[[Layout], Sequence[Path]]
    checked: Callable[[Layout], Sequence[Path]]
    faults: Callable[[Layout, Progress], list[Fault]]
    mend: Callable[[Layout, Sequence[Fault], Progress, StopRequest], Iterator[Mending]] | None = None
