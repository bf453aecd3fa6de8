"""The history of an output folder: one appended line of JSON per run, with its duration.

Used by people and reports, and to find the photographs if their folder is not given.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from romacli.disk import unwritable
from romacli.errors import InputError, StoreError
from romacli.options import Typed
from romacli.words import counted

from .images import read_images, unusable
from .layout import Layout

# The stage of a run that had nothing to match, but other photographs or options than the last one.
OPTIONS = "options"


@dataclass(frozen=True)
class Run:
    """One task. started: UTC, ISO 8601; finished: whether it ran to its end; images: the absolute folder of the
    photographs it read, if any; counts: numbers about what it did; output: the folder it wrote to, if not the job's.
    command, options: of matching, the command and the words of the options that a run which goes on with it needs."""

    stage: str
    started: str
    seconds: float
    finished: bool
    images: str | None = None
    counts: Mapping[str, float] = field(default_factory=dict)
    output: str | None = None
    command: str = ""
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether it was noted at its end, not when it began."""
        return self.finished or self.seconds > 0


def append_run(path: Path, run: Run) -> None:
    """Append a line in a single write.

    Raises:
        StoreError: the file cannot be written to.
    """
    line = (json.dumps(asdict(run)) + "\n").encode()
    try:
        with path.open("ab", buffering=0) as file:
            start = file.tell()
            if file.write(line) < len(line):  # the next line would follow a part of this one
                file.truncate(start)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise unwritable(path, error, num_bytes=len(line)) from error


def read_runs(path: Path) -> list[Run]:
    """All runs in order; none without a file. Lines cut off by a kill are skipped.

    A run that was only begun is still going on or was killed: another line follows when it ends.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    runs = []
    for line in lines:
        try:
            values = json.loads(line)
            runs.append(Run(**{**values, "seconds": float(values["seconds"]), "counts": dict(values["counts"])}))
        except (ValueError, TypeError, KeyError):
            continue
    ended = {(run.stage, run.started) for run in runs if run.is_over}
    return [run for run in runs if run.is_over or (run.stage, run.started) not in ended]


@contextmanager
def noted(
    layout: Layout | None,
    stage: str,
    *,
    images: Path | None = None,
    output: Path | None = None,
    typed: Typed | None = None,
) -> Iterator[dict[str, float]]:
    """Time a block and append it to the folder's history; the block may fill the counts it is given.

    Folders without a manifest are not jobs and get no history. A failed write does not fail the job. A new folder of
    photographs and newly typed options are noted at once, to be known after a kill.
    """
    counts: dict[str, float] = {}
    run = replace(_begun(stage, images, typed), counts=counts, output=str(output.resolve()) if output else None)
    start, finished = time.monotonic(), False
    if layout and is_new(layout, images=images, typed=typed):
        _append(layout, run)
    try:
        yield counts
        finished = True
    finally:
        seconds = max(round(time.monotonic() - start, 3), 0.001)
        _append(layout, replace(run, seconds=seconds, finished=finished))


def note_options(layout: Layout, *, images: Path, typed: Typed) -> None:
    """Note a folder of photographs and options for a run that has nothing to match, if they are new."""
    if is_new(layout, images=images, typed=typed):
        _append(layout, replace(_begun(OPTIONS, images, typed), finished=True))


def _begun(stage: str, images: Path | None, typed: Typed | None) -> Run:
    now, words = datetime.now(UTC).isoformat(timespec="seconds"), typed or Typed()
    folder = str(images.resolve()) if images else None
    return Run(stage, now, 0.0, False, folder, command=words.command, options=words.options)


def _append(layout: Layout | None, run: Run) -> None:
    if layout and layout.manifest.exists():
        with suppress(StoreError):
            append_run(layout.runs, run)


def is_new(layout: Layout, *, images: Path | None, typed: Typed | None) -> bool:
    """Whether a run reads another folder of photographs than the last one, or its options were typed otherwise."""
    if images and photographs_of(layout) != images.resolve():
        return True
    return typed is not None and typed != typed_of(layout)[0]


def typed_of(layout: Layout) -> tuple[Typed, frozenset[str]]:
    """The options of the last run that matched or had nothing to match, and the stages that were finished since."""
    runs = read_runs(layout.runs)
    last = max((index for index, run in enumerate(runs) if run.stage in ("matching", OPTIONS)), default=None)
    if last is None:
        return Typed(), frozenset()
    since = frozenset(run.stage for run in runs[last + 1 :] if run.finished)
    return Typed(runs[last].command, dict(runs[last].options)), since


def photographs_of(layout: Layout) -> Path | None:
    """The folder that a job's photographs were last read from; None if unknown."""
    folders = [run.images for run in read_runs(layout.runs) if run.images]
    return Path(folders[-1]) if folders else None


def require_photographs(layout: Layout, images: Path | None, *, unchanged: bool = False) -> None:
    """Check that a folder, by default the last one, has some of a job's photographs. unchanged: as they were matched.

    Raises:
        InputError: it has none.
    """
    known, folder = read_images(layout.images), images or photographs_of(layout)
    faults = unusable(folder, known, known)
    is_changed = "changed" in faults.values()
    if known and len(faults) == len(known) and (unchanged or not is_changed):
        copies = "; if they show the same, run `romacli match` with --changed keep first" if is_changed else ""
        raise InputError(
            f"{folder or 'The folder noted in the job'} has none of the {counted(len(known), 'photograph')} of "
            f"{layout.root} as they were matched, such as {min(known)}. Give their folder with --images DIR{copies}."
        )
