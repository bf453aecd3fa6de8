"""What was run in an output folder and how long it took: a line of JSON for each piece of work, appended.

For people and reports; nothing that is derived depends on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .layout import unwritable


@dataclass(frozen=True)
class Run:
    """One piece of work. started: UTC, ISO 8601; finished: it ran to its end; images: the folder of photographs,
    absolute, where it looked at them; counts: what it did, in numbers."""

    stage: str
    started: str
    seconds: float
    finished: bool
    images: str | None = None
    counts: Mapping[str, float] = field(default_factory=dict)


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
