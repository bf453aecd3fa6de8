"""Read databases and models without changing a byte of them."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from romacli.errors import StoreError
from romacli.types import Pair, Size, canonical

from .access import PAIR_BASE, images_of, reading
from .binding import load_pycolmap
from .poses import UNREADABLE, Pose, load_model, open_model, posed_images


@dataclass(frozen=True)
class ModelCamera:
    """A registered camera: COLMAP's model, size (width, height), focal length in px (the mean of two) and id."""

    model: str
    size: Size
    focal_length_px: float
    number: int = 1


@dataclass(frozen=True)
class Model:
    """A COLMAP model as arrays.

    xyz: (N, 3) float32; colours: (N, 3) uint8 RGB; errors: (N,) float32 px; track_lengths: (N,) int32; poses,
    observations, cameras: of the registered images, by name; observations count their points.
    """

    xyz: np.ndarray
    colours: np.ndarray
    errors: np.ndarray
    track_lengths: np.ndarray
    poses: Mapping[str, Pose]
    observations: Mapping[str, int]
    cameras: Mapping[str, ModelCamera]


def read_model(folder: Path) -> Model:
    """Read a model.

    Raises:
        InputError: the folder contains none.
        StoreError: its files are damaged.
    """
    try:
        model = open_model(folder)
    except UNREADABLE as error:
        raise StoreError(f"{folder} is damaged. Rebuild the model with `romacli reconstruct`.") from error
    points = list(model.points3D.values())
    poses, observations, cameras = {}, {}, {}
    for image, pose in posed_images(model):
        camera = model.cameras[image.camera_id]
        poses[image.name], observations[image.name] = pose, image.num_points3D
        size, focal_length = (camera.width, camera.height), float(camera.mean_focal_length())
        cameras[image.name] = ModelCamera(camera.model.name, size, focal_length, image.camera_id)
    return Model(
        np.array([point.xyz for point in points], np.float32).reshape(-1, 3),
        np.array([point.color for point in points], np.uint8).reshape(-1, 3),
        np.array([point.error for point in points], np.float32),
        np.array([point.track.length() for point in points], np.int32),
        poses,
        observations,
        cameras,
    )


def rows_digest(path: Path) -> str:
    """The sha256 of all rows of a database: programs that merely open one rewrite bytes of its file.

    Raises:
        InputError: there is no such file.
        StoreError: it is no database.
    """
    with reading(path) as connection:
        found = hashlib.sha256()
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        for (table,) in connection.execute(tables).fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                sizes = [len(value) if isinstance(value, bytes) else value for value in row]
                found.update(repr((table, sizes)).encode())
                for value in row:
                    if isinstance(value, bytes):
                        found.update(value)
        return found.hexdigest()


def read_focal_lengths(path: Path) -> dict[int, tuple[float, bool]]:
    """The mean focal length in px by camera, and whether it is a prior: given by the user, or from EXIF data.

    Cameras of spherical panoramas have none and are omitted.

    Raises:
        InputError: there is no such file.
        StoreError: it is no COLMAP database.
    """
    with reading(path) as connection:
        rows = connection.execute("SELECT camera_id, model, params, prior_focal_length FROM cameras").fetchall()
    pycolmap = load_pycolmap()

    def mean_focal_px(model: int, params: bytes) -> float:
        camera = pycolmap.Camera(model=pycolmap.CameraModelId(model), params=np.frombuffer(params, np.float64))
        return float(camera.mean_focal_length())

    found = {camera: (mean_focal_px(model, params), bool(is_prior)) for camera, model, params, is_prior in rows}
    return {camera: (length, is_prior) for camera, (length, is_prior) in found.items() if length}


def read_keypoints(path: Path) -> dict[str, np.ndarray]:
    """The keypoints of each image of a database, (K, 2) float32 COLMAP px.

    Raises:
        InputError: there is no such file.
        StoreError: it is no COLMAP database.
    """
    query = "SELECT name, rows, cols, data FROM keypoints JOIN images USING (image_id)"
    with reading(path) as connection:
        return {
            name: np.frombuffer(data or b"", np.float32).reshape(rows, cols)[:, :2]
            for name, rows, cols, data in connection.execute(query)
        }


def read_model_keypoints(folder: Path) -> dict[str, np.ndarray]:
    """The keypoints of each registered image of a model, (K, 2) float32 COLMAP px, whether or not they see a point.

    Raises:
        InputError: the folder contains no model, or a damaged one.
    """
    return {
        image.name: np.array([point.xy for point in image.points2D], np.float32).reshape(-1, 2)
        for image, _ in posed_images(load_model(folder))
    }


def read_inliers(path: Path) -> dict[Pair, int]:
    """The inliers of each verified pair of a database, names ascending; pairs without any are omitted.

    Raises:
        InputError: there is no such file.
        StoreError: it is no COLMAP database.
    """
    with reading(path) as connection:
        names = dict(connection.execute("SELECT image_id, name FROM images"))
        rows = connection.execute("SELECT pair_id, rows FROM two_view_geometries WHERE rows > 0").fetchall()
        found = [(images_of(pair_id), count) for pair_id, count in rows]
    return {canonical((names[a], names[b])): count for (a, b), count in found}


@contextmanager
def verified_places(path: Path) -> Iterator[Callable[[Pair], tuple[np.ndarray, np.ndarray] | None]]:
    """Open a database for a function that reads where the inliers of a pair lie; None if the pair is not verified.

    It returns (M, 2) float64 x, y in each image, relative to its width and height.

    Raises:
        InputError: there is no such file.
        StoreError: it is no COLMAP database.
    """
    with reading(path) as connection:
        numbers = {name: image for image, name in connection.execute("SELECT image_id, name FROM images")}
        verified = {row[0] for row in connection.execute("SELECT pair_id FROM two_view_geometries WHERE rows > 0")}
        sizes, points = image_sizes(connection), cache(partial(image_points, connection))

        def places(pair: Pair) -> tuple[np.ndarray, np.ndarray] | None:
            images = [numbers.get(name, 0) for name in pair]
            pair_id = PAIR_BASE * min(images) + max(images)
            if pair_id not in verified:
                return None
            inliers = pair_inliers(connection, pair_id)[:, np.argsort(images)]
            one, other = (points(image)[rows] / sizes[image] for image, rows in zip(images, inliers.T, strict=True))
            return one, other

        yield places


def image_sizes(database: sqlite3.Connection) -> dict[int, Size]:
    """The (width, height) in px of each image, by its number."""
    query = "SELECT image_id, width, height FROM images JOIN cameras USING (camera_id)"
    return {image: (width, height) for image, width, height in database.execute(query)}


def image_points(database: sqlite3.Connection, image: int) -> np.ndarray:
    """The keypoints of an image, (K, 2) float32 COLMAP px."""
    query = "SELECT rows, cols, data FROM keypoints WHERE image_id = ?"
    rows, cols, data = database.execute(query, (image,)).fetchone()
    return np.frombuffer(data, np.float32).reshape(rows, cols)[:, :2]


def pair_inliers(database: sqlite3.Connection, pair_id: int) -> np.ndarray:
    """The inliers of a verified pair, (M, 2) rows of its images' keypoints."""
    query = "SELECT rows, data FROM two_view_geometries WHERE pair_id = ?"
    rows, data = database.execute(query, (pair_id,)).fetchone()
    return np.frombuffer(data, np.uint32).reshape(rows, 2)
