"""Keep the ids of images, cameras, frames and rigs between databases, as other programs rely on them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from romacli.names import respelled

from .access import open_readonly

_CAMERA = 0  # COLMAP's SensorType
_CAMERAS = "SELECT name, camera_id FROM images ORDER BY name"
_CAMERA_IDS = {
    "cameras": "camera_id",
    "images": "camera_id",
    "rigs": "ref_sensor_id",
    "frame_data": "sensor_id",
    "pose_priors": "corr_sensor_id",
}
_FRAME_OF = f"SELECT frame_id FROM frame_data WHERE data_id = ? AND sensor_type = {_CAMERA}"
_FRAMES = f"SELECT name, frame_id FROM frame_data JOIN images ON data_id = image_id WHERE sensor_type = {_CAMERA}"
_RIGS = f"""SELECT name, rig_id FROM frame_data JOIN images ON data_id = image_id JOIN frames USING (frame_id)
    WHERE sensor_type = {_CAMERA}"""


@dataclass(frozen=True)
class Numbers:
    """The ids of each image in a database, and of its camera, frame and rig, by the image's name."""

    images: Mapping[str, int] = field(default_factory=dict)
    cameras: Mapping[str, int] = field(default_factory=dict)
    frames: Mapping[str, int] = field(default_factory=dict)
    rigs: Mapping[str, int] = field(default_factory=dict)


NO_NUMBERS = Numbers()


def read_numbers(path: Path, names: Collection[str]) -> Numbers:
    """Read the ids in a database, with names spelled as in `names`; none if there is no valid database.

    Databases of COLMAP before version 4 have no frames and rigs.
    """
    if not path.is_file():
        return NO_NUMBERS
    queries = ("SELECT name, image_id FROM images", "SELECT name, camera_id FROM images", _FRAMES, _RIGS)
    found: list[dict[str, int]] = []
    try:
        with closing(open_readonly(path)) as connection:
            found.extend(respelled(dict(connection.execute(query)), names) for query in queries)
    except sqlite3.Error:
        pass
    return Numbers(*found)


def continued(groups: Sequence[Collection[str]], former: Mapping[str, int]) -> list[int]:
    """An id for each group of image names: the one that most of its images had, or else one above all former ids.

    If two groups would get the same id, it goes to the one with more of those images.
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
    """Give the frames and rigs of a database their former ids; COLMAP assigns ids to those of rig files itself."""
    _renumber(database, _FRAMES, former.frames, {"frames": "frame_id", "frame_data": "frame_id"})
    _renumber(database, _RIGS, former.rigs, {"rigs": "rig_id", "rig_sensors": "rig_id", "frames": "rig_id"})


def give_own_cameras(database: sqlite3.Connection, names: Collection[str], former: Numbers) -> None:
    """Give images that share cameras one each, with a rig of its own; those that had such cameras get their former ids.

    Of a camera whose images are all named, the first keeps it. The database has no rigs of several cameras.
    """
    rows = database.execute("SELECT name, image_id, camera_id FROM images ORDER BY name DESC").fetchall()
    shared = Counter(camera for _, _, camera in rows)
    (last,) = database.execute("SELECT max(camera_id) FROM cameras").fetchone()
    ids, taken = dict(former.cameras), set(former.cameras.values())
    for name, image, camera in rows:
        if name not in names or shared[camera] == 1:
            if camera not in taken:
                ids.setdefault(name, camera)
            continue
        shared[camera] -= 1
        last += 1
        database.execute(
            "INSERT INTO cameras SELECT ?, model, width, height, params, prior_focal_length FROM cameras "
            "WHERE camera_id = ?",
            (last, camera),
        )
        made = database.execute("INSERT INTO rigs (ref_sensor_id, ref_sensor_type) VALUES (?, ?)", (last, _CAMERA))
        _give(database, image, last, made.lastrowid)
    _renumber(database, _CAMERAS, ids, _CAMERA_IDS)


def take_cameras_of(database: sqlite3.Connection, model: Any) -> None:
    """Give the images of a model the cameras and rigs that they have there, as COLMAP requires to go on from it.

    Images that share a camera in one may have their own in the other. Rigs of several cameras stay as they are.
    """
    alone = {number: rig.ref_sensor_id.id for number, rig in model.rigs.items() if rig.num_sensors() == 1}
    (last,) = database.execute("SELECT max(rig_id) FROM rigs").fetchone()
    for new, (rig, camera) in enumerate(alone.items(), max(last, *model.rigs) + 1):
        had = database.execute("SELECT rig_id FROM rigs WHERE ref_sensor_id = ?", (camera,)).fetchone()
        if had == (rig,):
            continue
        moves = [(rig, new)] if had is None else [(rig, new), (had[0], rig)]
        for before, after in moves:
            for table in ("rigs", "frames"):
                database.execute(f"UPDATE {table} SET rig_id = ? WHERE rig_id = ?", (after, before))
        if had is None:
            database.execute("INSERT INTO rigs VALUES (?, ?, ?)", (rig, camera, _CAMERA))
            made = model.cameras[camera]
            row = camera, made.model.value, made.width, made.height, np.array(made.params).tobytes(), False
            database.execute("INSERT OR IGNORE INTO cameras VALUES (?, ?, ?, ?, ?, ?)", row)
    for number, image in model.images.items():
        rig = model.frames[image.frame_id].rig_id
        if rig in alone:
            _give(database, number, image.camera_id, rig)
    database.execute("DELETE FROM rigs WHERE rig_id NOT IN (SELECT rig_id FROM frames)")


def _give(database: sqlite3.Connection, image: int, camera: int, rig: int | None) -> None:
    """Give an image a camera, and its frame the rig of that."""
    (frame,) = database.execute(_FRAME_OF, (image,)).fetchone()
    database.execute("UPDATE images SET camera_id = ? WHERE image_id = ?", (camera, image))
    database.execute("UPDATE frames SET rig_id = ? WHERE frame_id = ?", (rig, frame))
    database.execute("UPDATE frame_data SET sensor_id = ? WHERE frame_id = ?", (camera, frame))
    database.execute(
        f"UPDATE pose_priors SET corr_sensor_id = ? WHERE corr_data_id = ? AND corr_sensor_type = {_CAMERA}",
        (camera, image),
    )


def _renumber(database: sqlite3.Connection, query: str, former: Mapping[str, int], columns: Mapping[str, str]) -> None:
    """Give groups of images their former ids. query: name and present id of each image; columns: the id's, by table."""
    groups: dict[int, list[str]] = {}
    for name, number in database.execute(query):
        groups.setdefault(number, []).append(name)
    numbers = dict(zip(groups, continued(list(groups.values()), former), strict=True))
    if all(before == after for before, after in numbers.items()):
        return
    database.execute("CREATE TEMP TABLE numbers (before INTEGER PRIMARY KEY, after INTEGER)")
    database.executemany("INSERT INTO numbers VALUES (?, ?)", numbers.items())
    for table, column in columns.items():
        # Via negative numbers, so that ids stay unique in between.
        database.execute(f"UPDATE {table} SET {column} = -(SELECT after FROM numbers WHERE before = {column})")
        database.execute(f"UPDATE {table} SET {column} = -{column}")
    database.execute("DROP TABLE numbers")
