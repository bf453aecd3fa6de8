"""Detect from verified pairs whether all photographs of a database were taken from one place."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import cache, partial
from pathlib import Path

import numpy as np

from romacli.colmap.access import images_of, open_readonly
from romacli.colmap.reading import image_points, image_sizes, pair_inliers
from romacli.colmap.verify import MAPPED_CONFIGS
from romacli.errors import EstimationError
from romacli.geometry.rotation import PlanarPair, are_from_one_place, planar_pair
from romacli.types import Size

# Samples of pairs and points, which suffice.
_MOST_PAIRS, _MOST_POINTS = 150, 600
_MOST_PX = 4.0  # of an inlier of a homography


def is_from_one_place(database: Path) -> bool:
    """Check up to 150 evenly sampled verified pairs; the database is not changed."""
    with closing(open_readonly(database)) as connection:
        sizes = image_sizes(connection)
        query = (
            f"SELECT pair_id FROM two_view_geometries WHERE rows > 0 AND config IN {MAPPED_CONFIGS} ORDER BY pair_id"
        )
        found = [row[0] for row in connection.execute(query)]
        if not found:
            return False
        spread = np.linspace(0, len(found) - 1, min(len(found), _MOST_PAIRS)).round().astype(int)
        points = cache(partial(image_points, connection))
        return are_from_one_place([_planar(connection, found[row], sizes, points) for row in spread])


def _planar(
    connection: sqlite3.Connection, pair_id: int, sizes: Mapping[int, Size], points: Callable[[int], np.ndarray]
) -> PlanarPair | None:
    inliers, (one, other) = pair_inliers(connection, pair_id), images_of(pair_id)
    first, second = inliers[:: max(1, len(inliers) // _MOST_POINTS)].T
    try:
        return planar_pair(points(one)[first], points(other)[second], sizes[one], sizes[other], max_error_px=_MOST_PX)
    except EstimationError:
        return None
