"""Databases of simulated views with unknown focal length: noisy points, verified by the project's own code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from romacli.colmap.cameras import ImageInfo, assign_cameras
from romacli.colmap.database import DatabaseSummary, write_database
from romacli.colmap.options import CameraOptions, VerifyOptions

SIZE = (640, 480)
GUESSED = CameraOptions(mode="single", model="SIMPLE_RADIAL")
Poses = list[tuple[np.ndarray, np.ndarray]]


def turned(x: float, y: float, z: float) -> np.ndarray:
    return Rotation.from_euler("xyz", [x, y, z], degrees=True).as_matrix()


def wandering(step: np.ndarray, count: int = 8, seed: int = 0, look_deg: float = 5) -> Poses:
    """A camera that moves in steps and looks around, like a hand-held or car-mounted one."""
    rng = np.random.default_rng(seed)
    return [(turned(*rng.normal(0, look_deg, 3)), index * step) for index in range(count)]


def _depth(focal: float) -> float:
    """The factor by which points are farther away than at 640 px, so that they fill the view."""
    return max(1.0, focal / 640)


def orbit(count: int = 10, seed: int = 0, focal: float = 640) -> Poses:
    """A camera that orbits the points, 9 degrees a step, at a distance that depends on the focal length."""
    rng, poses, middle = np.random.default_rng(seed), [], 9.5 * _depth(focal)
    for index in range(count):
        angle = np.deg2rad(9 * index)
        distance = middle * rng.normal(1, 0.1)
        centre = np.array([np.sin(angle) * distance, middle * rng.normal(0, 0.1), middle - np.cos(angle) * distance])
        look = turned(rng.normal(0, 3), np.rad2deg(angle) + rng.normal(0, 4), rng.normal(0, 4))
        poses.append((look, centre))
    return poses


def write_views(
    path: Path,
    poses: Poses,
    focal: float | list[float],
    *,
    noise_px: float = 0.5,
    relief: float | None = None,
    points: int = 1500,
    distortion: float = 0.0,
    off_centre: tuple[float, float] = (0.0, 0.0),
    is_fisheye: bool = False,
    model: str = GUESSED.model,
    is_loose: bool = False,
    method: str = "magsac",
    seed: int = 1,
    **more,
) -> DatabaseSummary:
    """A database of noisy points in every pair of views within four.

    focal: in px, one per view where they differ.

    relief: depths of a plane relative to its distance; None for a cloud. distortion: k of SIMPLE_RADIAL. off_centre:
    position of the optical axis relative to the middle, in px. is_fisheye: equidistant projection. model: what the
    database takes the camera for. is_loose: they share it for want of EXIF data. method: of verification.
    """
    rng = np.random.default_rng(seed)
    lengths = focal if isinstance(focal, list) else [focal] * len(poses)
    depth = _depth(lengths[0])
    cloud = rng.uniform([-6, -4, 5 * depth], [6, 4, 14 * depth], (points, 3))
    if relief is not None:
        cloud[:, 2] = depth * 8 * (1 + relief * rng.uniform(-1, 1, points))
    names = [f"{index}.jpg" for index in range(len(poses))]
    seen, places = [], {}
    for name, (turn, centre), length in zip(names, poses, lengths, strict=True):
        x = (cloud - centre) @ turn.T
        rays = x[:, :2] / x[:, 2:]
        slope = np.linalg.norm(rays, axis=1, keepdims=True)
        rays *= np.arctan(slope) / slope if is_fisheye else 1 + distortion * slope**2
        xy = length * rays + np.array(SIZE) / 2 + off_centre + rng.normal(0, noise_px, (points, 2))
        seen.append((x[:, 2] > 0.5) & (xy > 0).all(1) & (xy < SIZE).all(1))
        places[name] = xy.astype(np.float32)
    matches = {
        (names[i], names[j]): np.repeat(np.flatnonzero(seen[i] & seen[j])[:, None], 2, 1)
        for i in range(len(names))
        for j in range(i + 1, min(i + 5, len(names)))
    }
    matches = {pair: rows for pair, rows in matches.items() if len(rows) > 30}
    cameras, camera_of = assign_cameras(
        [ImageInfo(name, SIZE, **more) for name in names], replace(GUESSED, model=model)
    )
    return write_database(
        path,
        cameras=cameras,
        camera_of=camera_of,
        keypoints=places,
        matches=matches.items(),
        verify=VerifyOptions(method, num_threads=1),
        calibrate=True,
        loose=names if is_loose else (),
    )


def told(summary: DatabaseSummary) -> list[str]:
    """The findings about the cameras, as sentences."""
    return [*map(str, summary.calibrated), *summary.separated, *summary.mixed, *summary.odd, *summary.contradicted]
