"""Choose the initial pair of a model by inliers and triangulation angle."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from romacli.colmap.access import images_of
from romacli.colmap.binding import load_pycolmap
from romacli.colmap.options import PANORAMA
from romacli.colmap.verify import MAPPED_CONFIGS

# COLMAP's angle for an initial pair; larger ones are no better.
_ENOUGH_DEG = 16.0
_FEWEST_INLIERS, _MOST_POINTS = 30, 500
# Minimum angle of points as a share of the angle of wide pairs, within these bounds; the upper one is COLMAP's.
_LEAST_SHARE, _LEAST_DEG = 0.25, (0.2, 1.5)


@dataclass(frozen=True)
class InitialPair:
    """Two image ids, the inliers of their pair and its median triangulation angle in degrees."""

    images: tuple[int, int]
    inliers: int
    angle_deg: float

    @property
    def worth(self) -> float:
        return self.inliers * min(self.angle_deg / _ENOUGH_DEG, 1.0)


def initial_pairs(database: Path) -> list[InitialPair]:
    """All pairs of a database that show depth, best first, without those of spherical panoramas."""
    pycolmap = load_pycolmap()
    found = []
    with closing(pycolmap.Database.open(database)) as opened:
        cameras = {camera.camera_id: camera for camera in opened.read_all_cameras()}
        camera_of = {image.image_id: cameras[image.camera_id] for image in opened.read_all_images()}
        points = {image: np.asarray(opened.read_keypoints(image))[:, :2] for image in camera_of}
        for pair_id, geometry in zip(*opened.read_two_view_geometries(), strict=True):
            first, second = images_of(pair_id)
            matches = np.asarray(geometry.inlier_matches)
            is_usable = len(matches) >= _FEWEST_INLIERS and int(geometry.config) in MAPPED_CONFIGS
            if not is_usable or PANORAMA in (camera_of[first].model.name, camera_of[second].model.name):
                continue
            some = matches[:: -(-len(matches) // _MOST_POINTS)]
            places = [points[image][some[:, side]].astype(float) for side, image in enumerate((first, second))]
            geometry.inlier_matches = np.repeat(np.arange(len(some), dtype=np.uint32)[:, None], 2, axis=1)
            if pycolmap.estimate_two_view_geometry_pose(
                camera_of[first], places[0], camera_of[second], places[1], geometry
            ):
                found.append(InitialPair((first, second), len(matches), float(np.degrees(geometry.tri_angle))))
    return sorted(found, key=lambda pair: (-pair.worth, pair.images))


def least_angle_deg(pairs: list[InitialPair]) -> float:
    """The minimum triangulation angle of points: smaller than COLMAP's if even the widest pairs have small angles."""
    widest = np.quantile([pair.angle_deg for pair in pairs], 0.9) if pairs else np.inf
    return float(np.clip(widest * _LEAST_SHARE, *_LEAST_DEG))


def apart(pairs: list[InitialPair], images: Collection[int]) -> list[InitialPair]:
    """The best disjoint pairs among some images."""
    found: list[InitialPair] = []
    used: set[int] = set()
    for pair in pairs:
        if used.isdisjoint(pair.images) and set(pair.images) <= set(images):
            found.append(pair)
            used.update(pair.images)
    return found
