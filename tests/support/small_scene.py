"""A box of points seen from an arc of known cameras, with keypoints and matches as aggregation writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from romacli.colmap.cameras import ImageInfo, assign_cameras
from romacli.colmap.database import DatabaseSummary, write_database
from romacli.colmap.options import CameraOptions, VerifyOptions
from romacli.colmap.poses import Pose
from romacli.types import Pair

SIZE = (640, 480)
FOCAL = 700.0
PARAMS = (FOCAL, SIZE[0] / 2, SIZE[1] / 2, 0.0)
GIVEN = CameraOptions(params=PARAMS)


@dataclass(frozen=True)
class Scene:
    """keypoints: COLMAP px by name; matches: (M, 2) rows by pair; poses: the true poses, cam_from_world."""

    poses: dict[str, Pose]
    keypoints: dict[str, np.ndarray]
    matches: dict[Pair, np.ndarray]

    @property
    def names(self) -> list[str]:
        return list(self.poses)

    def write(
        self, path: Path, *, cameras: CameraOptions = GIVEN, verify: VerifyOptions | None = None, **options
    ) -> DatabaseSummary:
        infos = [ImageInfo(name, SIZE) for name in self.names]
        specs, camera_of = assign_cameras(infos, cameras)
        return write_database(
            path,
            cameras=specs,
            camera_of=camera_of,
            keypoints=self.keypoints,
            matches=options.pop("matches", self.matches.items()),
            verify=verify or VerifyOptions(num_threads=1),
            **options,
        )


def look_at(centre: np.ndarray, target: np.ndarray) -> Pose:
    """The pose of a camera at `centre` that looks at `target`, its y axis down."""
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    rotation = np.stack((right, np.cross(forward, right), forward))
    return Pose(rotation, -rotation @ centre)


def make_scene(
    names: Sequence[str] | int = 6, *, points: int = 250, noise_px: float = 0.3, reach: int = 3, seed: int = 0
) -> Scene:
    """Cameras on an arc, 8 degrees apart; pairs at most `reach` apart; every point in view is a shared keypoint."""
    rng = np.random.default_rng(seed)
    if isinstance(names, int):
        names = [f"{index:03}.jpg" for index in range(names)]
    world = rng.uniform(-1, 1, (points, 3)) * [1.5, 1.1, 1.0]
    poses, keypoints, visible = {}, {}, {}
    for index, name in enumerate(names):
        angle = np.radians(8 * index)
        poses[name] = look_at(np.array([6 * np.sin(angle), 0.3 * (index % 3), -6 * np.cos(angle)]), np.zeros(3))
        camera = world @ poses[name].rotation.T + poses[name].translation
        xy = FOCAL * camera[:, :2] / camera[:, 2:] + np.array(SIZE) / 2 + rng.normal(0, noise_px, (points, 2))
        seen = np.flatnonzero(((xy > 0) & (xy < SIZE)).all(1))
        order = rng.permutation(seen)
        visible[name], keypoints[name] = order, xy[order].astype(np.float32)
    matches = {}
    for first, name0 in enumerate(names):
        for name1 in names[first + 1 : first + 1 + reach]:
            _, rows0, rows1 = np.intersect1d(visible[name0], visible[name1], return_indices=True)
            matches[name0, name1] = np.column_stack((rows0, rows1)).astype(np.int32)
    return Scene(poses, keypoints, matches)
