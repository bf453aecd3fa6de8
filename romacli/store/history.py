"""What was run in an output folder and how long it took: a line of JSON for each piece of work, appended.

For people and reports, and to find the photographs again where nobody names their folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from romacli.errors import StoreError

from .layout import Layout, unwritable


@dataclass(frozen=True)
class Run:
    """One piece of work. started: UTC, ISO 8601; finished: it ran to its end; images: the folder of photographs,
    absolute, where it looked at them; counts: what it did, in numbers; output: the folder that it wrote, where that is
    another one."""

    stage: str
    started: str
    seconds: float
    finished: bool
    images: str | None = None
    counts: Mapping[str, float] = field(default_factory=dict)
    output: str | None = None


def append_run(path: Path, run: Run) -> None:
    """Add a line by one write.

    Raises:
        StoreError: the file cannot be written to.
    """
    line = (json.dumps(asdict(run)) + "\n").encode()
    try:
        with path.open("ab", buffering=0) as file:
            file.write(line)
    except OSError as error:
        raise unwritable(path, error, num_bytes=len(line)) from error


def read_runs(path: Path) -> list[Run]:
    """All runs in order; none where there is no file. A line that a kill has torn is passed over."""
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
    return runs


@contextmanager
def noted(
    layout: Layout | None, stage: str, *, images: Path | None = None, output: Path | None = None
) -> Iterator[dict[str, float]]:
    """Time a block and append it to the folder's runs; the block may fill the counts it is given.

    No folder, and one without a manifest, is no job of ours and gets no such file. Nor does a job fail for want of it.
    """
    counts: dict[str, float] = {}
    started, start, finished = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic(), False
    try:
        yield counts
        finished = True
    finally:
        seconds = round(time.monotonic() - start, 3)
        folder, written = (str(path.resolve()) if path else None for path in (images, output))
        if layout and layout.manifest.exists():
            with suppress(StoreError):
                append_run(layout.runs, Run(stage, started, seconds, finished, folder, counts, written))


def photographs_of(layout: Layout) -> Path | None:
    """The folder of a job's photographs where they were when they were last looked at; None where nobody knows."""
    folders = [run.images for run in read_runs(layout.runs) if run.images]
    return Path(folders[-1]) if folders else None
