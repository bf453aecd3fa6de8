"""What is wrong with a COLMAP database, found without changing a byte of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from romacli.errors import BusyError

from .access import open_readonly

_MOST_SENTENCES = 5


def database_faults(path: Path) -> list[str]:
    """What SQLite finds wrong in a file, and rows that point to nothing; empty for a sound database."""
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
    "matches": "SELECT count(*) FROM matches WHERE pair_id / 2147483647 NOT IN (SELECT image_id FROM images)",
    "two_view_geometries": (
        "SELECT count(*) FROM two_view_geometries WHERE pair_id % 2147483647 NOT IN (SELECT image_id FROM images)"
    ),
}
