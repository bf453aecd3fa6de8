"""Each piece of long work noted in its folder, with how long it took and whether it came to its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from romacli.errors import StoreError
from romacli.store.layout import Layout
from romacli.store.runs import Run, append_run


@contextmanager
def noted(layout: Layout, stage: str, *, images: Path | None = None) -> Iterator[dict[str, float]]:
    """Time a block and append it to the folder's runs; the block may fill the counts it is given.

    A folder without a manifest is no job of ours and gets no such file. Nor does a job fail for want of it.
    """
    counts: dict[str, float] = {}
    started, start, finished = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic(), False
    try:
        yield counts
        finished = True
    finally:
        seconds = round(time.monotonic() - start, 3)
        folder = str(images.resolve()) if images else None
        if layout.manifest.exists():
            with suppress(StoreError):
                append_run(layout.runs, Run(stage, started, seconds, finished, folder, counts))
