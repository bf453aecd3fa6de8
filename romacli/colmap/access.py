"""Open databases without changing a byte, detect those in use, and check them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from romacli.errors import BusyError, InputError, StoreError

# COLMAP: pair_id = 2147483647 * smaller image_id + larger image_id.
PAIR_BASE = 2147483647
_MOST_SENTENCES = 5


def open_readonly(path: Path) -> sqlite3.Connection:
    """Open a database without changing a byte of it.

    Reading a database in WAL mode makes SQLite leave `-wal` and `-shm` files, unless the file is declared immutable,
    which is safe if no such file exists.

    Raises:
        BusyError: a program is changing it, or died while doing so.
    """
    _require_no_journal(path)
    is_in_use = _beside(path, "-wal").exists()
    flags = "mode=ro" if is_in_use else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.resolve().as_uri()}?{flags}", uri=True)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A COLMAP database open for reading, with SQLite's errors as sentences.

    Raises:
        InputError: there is no such file.
        StoreError: it is no COLMAP database, or damaged.
        BusyError: as from `open_readonly`.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing. Make it with `romacli colmap-import`, or give another.")
    try:
        with closing(open_readonly(path)) as connection:
            yield connection
    except (sqlite3.Error, KeyError) as error:
        raise StoreError(
            f"{path} cannot be read as a COLMAP database: {error}. `romacli check JOB --repair` rebuilds that of "
            "a job; otherwise give another."
        ) from error


def require_closed(path: Path) -> None:
    """Check that a database may be replaced or moved: leftover side files would corrupt its replacement.

    Raises:
        BusyError: another program has it open, or died with it open.
    """
    _require_no_journal(path)
    if _beside(path, "-wal").exists():
        raise BusyError(
            f"{path} is open in another program, or was left open by one that died: {path.name}-wal exists. Close "
            "that program, or move both files away."
        )


def images_of(pair_id: int) -> tuple[int, int]:
    """The ids of a pair's two images, the smaller one first."""
    return divmod(pair_id, PAIR_BASE)


def _require_no_journal(path: Path) -> None:
    """Check that no change to a database is unfinished.

    Source: SQLite's file format, rollback journals: one that is empty or whose header is zeroed is finished.
    """
    journal = _beside(path, "-journal")
    try:
        with journal.open("rb") as file:
            is_hot = file.read(1) not in (b"", b"\0")
    except OSError:
        return
    if is_hot:
        raise BusyError(
            f"{path} is being changed by another program, or by one that died: {journal.name} contains an unfinished "
            "change. Let that program end, or open the database once with COLMAP or sqlite3, which repairs it."
        )


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def database_faults(path: Path) -> list[str]:
    """The faults that SQLite finds in a file, and rows with invalid references; empty for a valid database."""
    try:
        with closing(open_readonly(path)) as connection:
            found = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({_MOST_SENTENCES})")]
            faults = [] if found == ["ok"] else [sentence.replace("\n", " ") for sentence in found]
            for table, sql in _ORPHANS.items():
                (count,) = connection.execute(sql).fetchone()
                if count:
                    faults.append(f"{count} rows of {table} belong to no image")
            return faults
    except (sqlite3.Error, OSError, UnicodeError, BusyError) as error:
        return [str(error)]


_ORPHANS = {
    "keypoints": "SELECT count(*) FROM keypoints WHERE image_id NOT IN (SELECT image_id FROM images)",
    "matches": f"SELECT count(*) FROM matches WHERE pair_id / {PAIR_BASE} NOT IN (SELECT image_id FROM images)",
    "two_view_geometries": (
        f"SELECT count(*) FROM two_view_geometries WHERE pair_id % {PAIR_BASE} NOT IN (SELECT image_id FROM images)"
    ),
}
