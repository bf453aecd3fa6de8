"""Write a job in another format into a new folder, atomically."""

from __future__ import annotations

from pathlib import Path

from romacli.disk import move_in, scratch_folder
from romacli.errors import StoreError, UsageError
from romacli.export.formats import FORMATS, Source
from romacli.store.history import photographs_of
from romacli.store.layout import Layout, model_of


def export(layout: Layout, name: str, folder: Path, images: Path | None) -> list[Path]:
    """Write a job in a format into a new folder, and return its files.

    Args:
        name: of a row of `FORMATS`. images: folder of the photographs; by default the one used for matching.

    Raises:
        UsageError: unknown format, or one that does not support the job's camera models.
        InputError: the job has no model, or photographs are missing.
        StoreError: the folder is not empty, or cannot be written.
    """
    if name not in FORMATS:
        raise UsageError(f"format {name} is not known. Choose from: {', '.join(FORMATS)}.")
    model = layout.model if name == "matches" else model_of(layout)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} already exists and is not empty. Remove it, or choose another --output.")
    source = Source(layout, model, images or photographs_of(layout))
    with scratch_folder(folder, num_bytes=FORMATS[name].room(source)) as scratch:
        written = scratch / "export"
        written.mkdir()
        FORMATS[name].write(source, written)
        move_in(written, folder)
    return sorted(path for path in folder.rglob("*") if path.is_file())
