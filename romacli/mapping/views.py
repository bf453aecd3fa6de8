"""Read from a model or a database which images overlap: frusta, shared points, listed pairs.

Databases are read with sqlite3, because pycolmap migrates every database it opens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.access import images_of, reading
from romacli.colmap.options import PANORAMA
from romacli.colmap.poses import Pose, load_model, posed_images
from romacli.errors import InputError
from romacli.types import Pair

# Depths of single points may be wrong.
_DEPTH_QUANTILES = (0.05, 0.95)
# Half the extent at depth 1 that a panorama is given, whose edges lie behind the camera.
_WIDEST = 4.0


@dataclass(frozen=True)
class View:
    """A registered image of a model.

    pose: cam_from_world. edges: left, top, right, bottom of the image at depth 1. depths: range of its points, or None
    if it has none.
    """

    pose: Pose
    edges: tuple[float, float, float, float]
    depths: tuple[float, float] | None


def read_views(model_folder: Path) -> dict[str, View]:
    """The cameras of a model's registered images, by name.

    Raises:
        InputError: the folder contains no COLMAP model, or one of spherical panoramas.
    """
    model = load_model(model_folder)
    if any(camera.model.name == PANORAMA for camera in model.cameras.values()):
        raise InputError(
            f"{model_folder} has spherical panoramas, which look everywhere. Use `romacli pairs covisible` or "
            "`romacli pairs spatial`."
        )
    return views_of(model)


def views_of(model: Any) -> dict[str, View]:
    """The same for a loaded model (pycolmap.Reconstruction)."""
    places = {identity: point.xyz for identity, point in model.points3D.items()}
    edges = {identity: edges_of(camera) for identity, camera in model.cameras.items()}
    views = {}
    for image, pose in posed_images(model):
        points = [places[point.point3D_id] for point in image.points2D if point.has_point3D()]
        views[image.name] = View(pose, edges[image.camera_id], depths_of(pose, np.array(points).reshape(-1, 3)))
    return views


def read_points_seen(model_folder: Path) -> dict[str, np.ndarray]:
    """The ids (n,) of the points that each registered image of a model sees, by name.

    Raises:
        InputError: the folder contains no COLMAP model, or one without points.
    """
    model = load_model(model_folder)
    if not model.num_points3D():
        raise InputError(f"{model_folder} contains no points, so no two images share any. Use `romacli pairs poses`.")
    return {
        image.name: np.array([point.point3D_id for point in image.points2D if point.has_point3D()], np.int64)
        for image, _ in posed_images(model)
    }


def read_listed_pairs(database: Path, *, min_inliers: int) -> list[Pair]:
    """The verified pairs of a COLMAP database, or the matched ones if none is verified yet.

    Args:
        min_inliers: minimum inliers of a pair.

    Raises:
        InputError: there is no such database, or it contains no pairs.
        StoreError: it is no COLMAP database.
    """
    with reading(database) as connection:
        names = dict(connection.execute("SELECT image_id, name FROM images"))
        verified = "SELECT pair_id FROM two_view_geometries WHERE rows >= ? ORDER BY pair_id"
        rows = connection.execute(verified, (max(1, min_inliers),)).fetchall()
        if not rows and not connection.execute("SELECT 1 FROM two_view_geometries WHERE rows > 0").fetchone():
            rows = connection.execute("SELECT pair_id FROM matches WHERE rows > 0 ORDER BY pair_id").fetchall()
        pairs = [images_of(pair_id) for (pair_id,) in rows]
        if not pairs:
            raise InputError(f"{database} contains no pair with {min_inliers} inliers. Lower --min-inliers, or match.")
        return [(names[first], names[second]) for first, second in pairs]


def edges_of(camera: Any) -> tuple[float, float, float, float]:
    """The extent of the image at depth 1 along the lines through its centre, where distortion is smallest.

    That of panoramas, which have no such points, is taken as 152 degrees.
    """
    across, down = camera.width / 2, camera.height / 2
    middles = np.array([[0, down], [across, 0], [camera.width, down], [across, camera.height]], float)
    rays = np.asarray(camera.cam_from_img(middles), float)
    rays = np.where(np.isfinite(rays), rays, _WIDEST * np.array([[-1, 0], [0, -1], [1, 0], [0, 1]]))
    return float(rays[0, 0]), float(rays[1, 1]), float(rays[2, 0]), float(rays[3, 1])


def depths_of(pose: Pose, points: np.ndarray) -> tuple[float, float] | None:
    """The depth range of world points (n, 3) in front of a camera; None if there is none."""
    depths = points @ pose.rotation[2] + pose.translation[2]
    depths = depths[depths > 0]
    if not len(depths):
        return None
    near, far = np.quantile(depths, _DEPTH_QUANTILES)
    return float(near), float(far)
