"""Temporary folders in which a database or models are built before they are moved into place."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from romacli.errors import StoreError


@contextmanager
def scratch_folder(path: Path, *, num_bytes: int = 0) -> Iterator[Path]:
    """Yield an empty folder next to `path`, removed afterwards, together with those of killed processes.

    Args:
        path: what the contents built in the folder will replace; missing parents are created.
        num_bytes: free space required. SQLite and COLMAP end the whole process on a full disk, so it is
            asked for before they begin.

    Raises:
        StoreError: the folder cannot be created, or there is too little space.
    """
    prefix = f".{path.name}."
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent, prefix)
        folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}. Choose another place for it.") from error
    held = _lock(folder)
    try:
        _require_room(path, folder / "room", num_bytes)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove the scratch folders that no living process holds."""
    for folder in parent.iterdir():
        if folder.name.startswith(prefix) and folder.name.endswith(".tmp"):
            held = _lock(folder)
            if held is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(held)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder until it is closed or the process dies; None if another holds it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor
    return None


def _require_room(path: Path, probe: Path, num_bytes: int) -> None:
    if not num_bytes:
        return
    try:
        with probe.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        probe.unlink()
    except OSError as error:
        megabytes = f"{num_bytes / 1e6:.0f} MB"
        raise StoreError(
            f"{path} cannot be written: {error.strerror}. Free {megabytes}, or choose another place for it."
        ) from error
