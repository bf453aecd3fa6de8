"""Read the cameras of a database and the fundamental matrices of its pairs, in long sides of the images."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from romacli.colmap.access import images_of
from romacli.types import Size

FEWEST_PAIRS = 6
# Maximum pairs within a camera from which its distortion and principal point are estimated.
_MOST_OWN = 100
# Number of leading parameters that are focal lengths, by COLMAP's id of the camera model; other models are not changed.
NUM_FOCAL = {0: 1, 1: 2, 2: 1, 3: 1, 4: 2, 5: 2, 8: 1, 9: 1}


@dataclass(frozen=True)
class Camera:
    model: int
    size: Size
    params: np.ndarray
    is_prior: bool

    @property
    def side(self) -> float:
        return float(max(self.size))

    @property
    def focal(self) -> float:
        """In long sides."""
        return float(self.params[0]) / self.side


@dataclass(frozen=True)
class Distortion:
    """value: see `fit_fundamental`; factors: changes of the focal length at the bounds of the value."""

    value: float
    factors: list[float]


@dataclass(frozen=True)
class Pairs:
    """Fundamental matrices (N, 3, 3) in long sides from the image centres, camera rows and image ids (N, 2); the
    distortion removed from the matrices, by camera row."""

    matrices: np.ndarray
    cameras: np.ndarray
    images: np.ndarray
    distortions: Mapping[int, Distortion] = field(default_factory=dict)

    def own(self, row: int) -> np.ndarray:
        """Rows of pairs within a camera, evenly sampled if there are many."""
        own = np.flatnonzero((self.cameras == row).all(axis=1))
        return own[np.linspace(0, len(own) - 1, min(len(own), _MOST_OWN)).round().astype(int)]


def read_cameras(database: sqlite3.Connection) -> dict[int, Camera]:
    """The cameras with focal lengths, by id."""
    query = "SELECT camera_id, model, width, height, params, prior_focal_length FROM cameras"
    return {
        camera: Camera(model, (width, height), np.frombuffer(params, np.float64), bool(is_prior))
        for camera, model, width, height, params, is_prior in database.execute(query)
        if model in NUM_FOCAL
    }


def read_pairs(database: sqlite3.Connection, cameras: Mapping[int, Camera]) -> Pairs:
    row_of = {camera: row for row, camera in enumerate(cameras)}
    camera_of = dict(database.execute("SELECT image_id, camera_id FROM images"))
    matrices, rows, images = [], [], []
    query = "SELECT pair_id, F FROM two_view_geometries WHERE rows > 0 AND F IS NOT NULL ORDER BY pair_id"
    for pair_id, data in database.execute(query):
        pair = [camera_of[image] for image in images_of(pair_id)]
        if not row_of.keys() >= set(pair):
            continue
        from_sides = [_pixels_from_sides(cameras[camera].size) for camera in pair]
        matrix = from_sides[1].T @ np.frombuffer(data, np.float64).reshape(3, 3) @ from_sides[0]
        length = np.linalg.norm(matrix)
        if not 0 < length < np.inf:
            continue
        matrices.append(matrix / length)
        rows.append([row_of[camera] for camera in pair])
        images.append(images_of(pair_id))
    first, second = (np.array(ids, int).reshape(-1, 2) for ids in (rows, images))
    return Pairs(np.array(matrices).reshape(-1, 3, 3), first, second)


def _pixels_from_sides(size: Size) -> np.ndarray:
    width, height = size
    side = max(width, height)
    return np.array([[side, 0, width / 2], [0, side, height / 2], [0, 0, 1]])
