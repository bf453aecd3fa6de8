"""Whether the photographs of a database were all taken from one place, by its verified pairs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import cache, partial
from pathlib import Path

import numpy as np

from romacli.colmap.access import images_of, open_readonly
from romacli.colmap.verify import MAPPED_CONFIGS
from romacli.errors import EstimationError
from romacli.geometry.rotation import PlanarPair, are_from_one_place, planar_pair
from romacli.types import Size

# Looking at so many pairs and points tells what all would.
_MOST_PAIRS, _MOST_POINTS = 150, 600


def is_from_one_place(database: Path, *, max_error_px: float = 4.0) -> bool:
    """Tell by up to 150 of the verified pairs, spread over all of them; the database stays as it is."""
    with closing(open_readonly(database)) as connection:
        query = "SELECT i.image_id, c.width, c.height FROM images i JOIN cameras c ON i.camera_id = c.camera_id"
        sizes: dict[int, Size] = {image: (width, height) for image, width, height in connection.execute(query)}
        query = (
            f"SELECT pair_id FROM two_view_geometries WHERE rows > 0 AND config IN {MAPPED_CONFIGS} ORDER BY pair_id"
        )
        found = [row[0] for row in connection.execute(query)]
        if not found:
            return False
        spread = np.linspace(0, len(found) - 1, min(len(found), _MOST_PAIRS)).round().astype(int)
        points = cache(partial(_points, connection))
        return are_from_one_place([_planar(connection, found[row], sizes, points, max_error_px) for row in spread])


def _planar(
    connection: sqlite3.Connection,
    pair_id: int,
    sizes: Mapping[int, Size],
    points: Callable[[int], np.ndarray],
    max_error_px: float,
) -> PlanarPair | None:
    rows, data = connection.execute(
        "SELECT rows, data FROM two_view_geometries WHERE pair_id = ?", (pair_id,)
    ).fetchone()
    matches = np.frombuffer(data, np.uint32).reshape(rows, 2)[:: max(1, rows // _MOST_POINTS)]
    one, other = images_of(pair_id)
    try:
        return planar_pair(
            points(one)[matches[:, 0]],
            points(other)[matches[:, 1]],
            sizes[one],
            sizes[other],
            max_error_px=max_error_px,
        )
    except EstimationError:
        return None


def _points(connection: sqlite3.Connection, image: int) -> np.ndarray:
    """The keypoints (K, 2) of an image."""
    rows, cols, data = connection.execute(
        "SELECT rows, cols, data FROM keypoints WHERE image_id = ?", (image,)
    ).fetchone()
    return np.frombuffer(data, np.float32).reshape(rows, cols)[:, :2]
