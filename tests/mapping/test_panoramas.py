"""Spherical panoramas: verified, mapped and compared by rays in all directions; refused where a frustum is needed."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from support.small_scene import Scene

from romacli.colmap.cameras import ImageInfo, assign_cameras, shared_untold
from romacli.colmap.database import write_database
from romacli.colmap.options import PANORAMA, CameraOptions, VerifyOptions
from romacli.colmap.poses import Pose, compare_poses, read_poses
from romacli.colmap.reading import read_inliers
from romacli.errors import InputError, UsageError
from romacli.export.formats import Source, write_nerfstudio, write_undistorted
from romacli.mapping.cameras import read_cameras
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import reconstruct
from romacli.mapping.views import read_views
from romacli.store.layout import Layout

SIZE = (640, 320)
SPHERES = CameraOptions(model=PANORAMA)
COUNT, WRONG = 300, 40


def pixels_of(seen: np.ndarray) -> np.ndarray:
    """Longitude and latitude of points (n, 3) in a camera's frame, as COLMAP px (n, 2)."""
    x, y, z = seen.T
    longitude, latitude = np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))
    return np.column_stack((longitude / (2 * np.pi) + 0.5, latitude / np.pi + 0.5)) * SIZE


def turned_by(degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])


def panoramas(count: int) -> Scene:
    """Cameras on a bent path inside a cloud of points, each turned further; some matches are wrong."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(COUNT, 3))
    world = 4 * directions / np.linalg.norm(directions, axis=1, keepdims=True) * rng.uniform(0.7, 1.3, (COUNT, 1))
    poses, keypoints = {}, {}
    for index in range(count):
        rotation, centre = turned_by(50 * index), np.array([0.4 * index - 1, 0.1 * (index % 2), 0.1 * index**2 - 1])
        poses[f"{index}.jpg"] = Pose(rotation, -rotation @ centre)
        seen = pixels_of(world @ rotation.T - rotation @ centre)
        keypoints[f"{index}.jpg"] = (seen + rng.normal(0, 0.1, seen.shape)).astype(np.float32)
    rows = np.arange(COUNT)
    wrong = np.concatenate((rows[:-WRONG], rng.permutation(rows[-WRONG:])))
    return Scene(poses, keypoints, {pair: np.column_stack((rows, wrong)) for pair in combinations(poses, 2)})


@pytest.fixture(scope="module")
def scene() -> Scene:
    return panoramas(6)


@pytest.fixture(scope="module")
def database(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("panoramas") / "database.db"
    cameras, camera_of = assign_cameras([ImageInfo(name, SIZE) for name in scene.names], SPHERES)
    verify = VerifyOptions(num_threads=1)
    write_database(
        path,
        cameras=cameras,
        camera_of=camera_of,
        keypoints=scene.keypoints,
        matches=scene.matches.items(),
        verify=verify,
    )
    return path


@pytest.fixture(scope="module")
def model(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sparse = tmp_path_factory.mktemp("model") / "sparse"
    reconstruct(database, sparse.parent, sparse, MapperOptions(num_threads=1))
    return sparse / "0"


def test_matches_in_all_directions_are_verified_and_wrong_ones_are_not(database: Path) -> None:
    inliers = read_inliers(database)
    assert len(inliers) == 15
    right = COUNT - WRONG
    assert all(0.98 * right <= count < right + 0.2 * WRONG for count in inliers.values())


def test_a_path_inside_a_cloud_is_mapped(scene: Scene, model: Path) -> None:
    errors = compare_poses(read_poses(model), scene.poses)
    assert len(read_poses(model)) == 6
    assert max(errors.rotation_deg) < 0.1
    assert max(errors.position) < 0.01


def test_the_global_mapper_maps_them_too(scene: Scene, database: Path, tmp_path: Path) -> None:
    reconstruct(database, tmp_path, tmp_path / "sparse", MapperOptions("global", num_threads=1))
    assert max(compare_poses(read_poses(tmp_path / "sparse" / "0"), scene.poses).rotation_deg) < 0.1


def test_points_behind_a_spherical_camera_have_pixels_and_distances(model: Path) -> None:
    camera = read_cameras(model)[0]
    points = np.array([[0, 0, 2.0], [0, 0, -2.0], [3.0, 0, 0], [0, 0, 0]])
    assert camera.pixels(points[[0, 2]]) == pytest.approx(np.array([[320, 160], [480, 160]]))
    assert camera.pixels(points[1:2])[0, 1] == pytest.approx(160)
    assert np.isnan(camera.pixels(points[3:])).all()
    places, depths = camera.project((points - camera.pose.translation) @ camera.pose.rotation)
    assert np.isfinite(places[:3]).all()
    assert depths == pytest.approx([2, 2, 3, 0], abs=1e-9)


def test_what_needs_a_frustum_refuses_them(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="covisible"):
        read_views(model)
    names = read_poses(model)
    for name in names:
        (tmp_path / name).write_bytes(b"")
    for write in (write_undistorted, write_nerfstudio):
        with pytest.raises(UsageError, match="`text` or `ply`"):
            write(Source(Layout(tmp_path), model, tmp_path), tmp_path / "out")


def test_panoramas_of_one_size_share_a_camera_without_doubt() -> None:
    images = [ImageInfo(name, SIZE) for name in ("a.jpg", "b.jpg")]
    _, camera_of = assign_cameras(images, SPHERES)
    assert shared_untold(images, camera_of, SPHERES) == []
    assert len(shared_untold(images, camera_of, CameraOptions())) == 1
