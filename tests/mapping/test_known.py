"""Points triangulated with known poses, and models that do not fit the photographs."""

from __future__ import annotations

import numpy as np
import pytest
from support.small_scene import GIVEN, SIZE, make_scene

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.cameras import ImageInfo
from romacli.colmap.database import write_database
from romacli.colmap.options import CameraOptions, VerifyOptions
from romacli.colmap.poses import read_poses
from romacli.errors import InputError
from romacli.mapping.cameras import known_cameras
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import reconstruct

NAMES = ["a ä/1.jpg", "a ä/2.jpg", "b/1.jpg", "b/2.jpg", "b/3.jpg"]
OPTIONS = {"refine_intrinsics": False, "num_threads": 1}


@pytest.fixture(scope="module")
def scene():
    return make_scene(NAMES)


@pytest.fixture(scope="module")
def model(scene, tmp_path_factory):
    """A model of the last four images, each with its own camera."""
    folder = tmp_path_factory.mktemp("known")
    some = make_scene(NAMES)
    some.poses.pop(NAMES[0])
    matches = {pair: rows for pair, rows in some.matches.items() if NAMES[0] not in pair}
    some.write(folder / "a.db", cameras=CameraOptions("per-image", params=GIVEN.params), matches=matches.items())
    reconstruct(folder / "a.db", folder, folder / "sparse", MapperOptions(**OPTIONS))
    return folder / "sparse" / "0"


def write(path, scene, model, names=NAMES):
    cameras, camera_of = known_cameras(model, [ImageInfo(name, SIZE) for name in names])
    return write_database(
        path,
        cameras=cameras,
        camera_of=camera_of,
        keypoints={name: scene.keypoints[name] for name in camera_of},
        matches=[(pair, rows) for pair, rows in scene.matches.items() if camera_of.keys() >= set(pair)],
        verify=VerifyOptions(num_threads=1),
    )


def test_points_are_triangulated_and_poses_stay(scene, model, tmp_path):
    assert write(tmp_path / "a.db", scene, model).cameras == 4
    options = MapperOptions(known_poses=model, **OPTIONS)
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", options)
    assert (summary.registered, summary.images, summary.models) == (4, 4, 1)
    assert summary.points3D > 200
    assert summary.mean_reprojection_error < 0.6
    before, after = read_poses(model), read_poses(tmp_path / "sparse" / "0")
    assert before.keys() == after.keys()
    for name, pose in before.items():
        np.testing.assert_allclose(after[name].rotation, pose.rotation, atol=1e-9)
        np.testing.assert_allclose(after[name].translation, pose.translation, atol=1e-9)


def test_an_image_without_matches_keeps_its_place(scene, model, tmp_path):
    write(tmp_path / "a.db", scene, model, NAMES[1:])
    alone = {pair: rows for pair, rows in scene.matches.items() if NAMES[-1] not in pair and NAMES[0] not in pair}
    cameras, camera_of = known_cameras(model, [ImageInfo(name, SIZE) for name in NAMES])
    write_database(
        tmp_path / "b.db",
        cameras=cameras,
        camera_of=camera_of,
        keypoints={name: scene.keypoints[name] for name in camera_of},
        matches=alone.items(),
        verify=VerifyOptions(num_threads=1),
    )
    options = MapperOptions(known_poses=model, **OPTIONS)
    reconstruct(tmp_path / "b.db", tmp_path, tmp_path / "sparse", options)
    assert sorted(read_poses(tmp_path / "sparse" / "0")) == NAMES[1:]


def test_photographs_of_other_names_are_told_with_an_example(model):
    with pytest.raises(InputError, match=r"none of the 4 images of .* it has a ä/2.jpg, the folder has 2.jpg"):
        known_cameras(model, [ImageInfo("2.jpg", SIZE)])


def test_photographs_of_another_size_are_named(model):
    with pytest.raises(InputError, match=r"b/1.jpg is 320x240 px, its camera in .* has 640x480"):
        known_cameras(model, [ImageInfo("b/1.jpg", (320, 240))])


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(InputError, match=r"contains no COLMAP model: images.bin and images.txt are missing"):
        known_cameras(tmp_path, [ImageInfo("1.jpg", SIZE)])


def test_a_damaged_model(model, tmp_path):
    for path in model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read as a COLMAP model"):
        known_cameras(tmp_path, [ImageInfo("1.jpg", SIZE)])


def test_a_model_without_poses(tmp_path):
    load_pycolmap().Reconstruction().write(tmp_path)
    with pytest.raises(InputError, match="contains no image with a pose"):
        known_cameras(tmp_path, [ImageInfo("1.jpg", SIZE)])
