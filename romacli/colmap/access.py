"""Databases that may be anybody's, opened without changing a byte of them, and told from those that are in use."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from romacli.errors import BusyError


def open_readonly(path: Path) -> sqlite3.Connection:
    """Open a database that may be anybody's without changing a byte of it.

    SQLite leaves `-wal` and `-shm` files behind a database in WAL mode that it only reads, unless it is told that
    nobody else changes the file; which is so when no such file is there.

    Raises:
        BusyError: a program is changing it, or died on the way.
    """
    _require_no_journal(path)
    is_in_use = _beside(path, "-wal").exists()
    flags = "mode=ro" if is_in_use else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.resolve().as_uri()}?{flags}", uri=True)


def require_closed(path: Path) -> None:
    """Return if a database may be replaced or moved: what lies beside it would destroy another one in its place.

    Raises:
        BusyError: another program has it open, or died with it open.
    """
    _require_no_journal(path)
    if _beside(path, "-wal").exists():
        raise BusyError(
            f"{path} is open in another program, or was left open by one that died: {path.name}-wal lies "
            "beside it. Close that program, or move both files away."
        )


def _require_no_journal(path: Path) -> None:
    """Return if no change to a database is half done.

    Source: SQLite's file format, rollback journals: one that is empty or whose header is zeroed is done with.
    """
    journal = _beside(path, "-journal")
    try:
        with journal.open("rb") as file:
            is_hot = file.read(1) not in (b"", b"\0")
    except OSError:
        return
    if is_hot:
        raise BusyError(
            f"{path} is being changed by another program, or was when that one died: {journal.name} lies beside it "
            "and has what is needed to make it whole. Let that program end, or open the database once with COLMAP or "
            "sqlite3, which mends it."
        )


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
