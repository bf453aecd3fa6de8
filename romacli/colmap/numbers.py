"""Keep the ids of images, cameras, frames and rigs, on which other programs rely, between databases."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from romacli.names import respelled

from .access import open_readonly

_CAMERA = 0  # COLMAP's SensorType
_FRAMES = f"SELECT name, frame_id FROM frame_data JOIN images ON data_id = image_id WHERE sensor_type = {_CAMERA}"
_RIGS = f"""SELECT name, rig_id FROM frame_data JOIN images ON data_id = image_id JOIN frames USING (frame_id)
    WHERE sensor_type = {_CAMERA}"""


@dataclass(frozen=True)
class Numbers:
    """Which number each image has in a database, and its camera, frame and rig, by the image's name."""

    images: Mapping[str, int] = field(default_factory=dict)
    cameras: Mapping[str, int] = field(default_factory=dict)
    frames: Mapping[str, int] = field(default_factory=dict)
    rigs: Mapping[str, int] = field(default_factory=dict)


def read_numbers(path: Path, names: Collection[str]) -> Numbers:
    """The numbers in a database, under the spelling that `names` have; none where there is no sound database.

    COLMAP's databases before version 4 have no frames and rigs.
    """
    if not path.is_file():
        return Numbers()
    queries = ("SELECT name, image_id FROM images", "SELECT name, camera_id FROM images", _FRAMES, _RIGS)
    found: list[dict[str, int]] = []
    try:
        with closing(open_readonly(path)) as connection:
            found.extend(respelled(dict(connection.execute(query)), names) for query in queries)
    except sqlite3.Error:
        pass
    return Numbers(*found)


def continued(groups: Sequence[Collection[str]], former: Mapping[str, int]) -> list[int]:
    """A number for each group of image names: the one that most of its images had, or else one after all former.

    Where two groups would have one number, it goes to the one with more of those images.
    """
    claims = [
        (-count, place, number)
        for place, group in enumerate(groups)
        for number, count in Counter(former[name] for name in group if name in former).items()
    ]
    numbers: dict[int, int] = {}
    taken: set[int] = set()
    for _, place, number in sorted(claims):
        if place not in numbers and number not in taken:
            numbers[place] = number
            taken.add(number)
    new = max(former.values(), default=0)
    for place in range(len(groups)):
        if place not in numbers:
            numbers[place] = new = new + 1
    return [numbers[place] for place in range(len(groups))]


def renumber(database: sqlite3.Connection, former: Numbers) -> None:
    """Give the frames and rigs of a database the numbers that they had; COLMAP numbers those of rig files itself."""
    for query, had, key, tables in (
        (_FRAMES, former.frames, "frame_id", ("frames", "frame_data")),
        (_RIGS, former.rigs, "rig_id", ("rigs", "rig_sensors", "frames")),
    ):
        groups: dict[int, list[str]] = {}
        for name, number in database.execute(query):
            groups.setdefault(number, []).append(name)
        numbers = dict(zip(groups, continued(list(groups.values()), had), strict=True))
        if all(before == after for before, after in numbers.items()):
            continue
        database.execute("CREATE TEMP TABLE numbers (before INTEGER PRIMARY KEY, after INTEGER)")
        database.executemany("INSERT INTO numbers VALUES (?, ?)", numbers.items())
        for table in tables:
            # By way of negative numbers, so that no two rows have the same on the way.
            database.execute(f"UPDATE {table} SET {key} = -(SELECT after FROM numbers WHERE before = {key})")
            database.execute(f"UPDATE {table} SET {key} = -{key}")
        database.execute("DROP TABLE numbers")
