"""Both mappers on scenes with known poses, and their effect on the output folders."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.small_scene import GIVEN, PARAMS, make_scene

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.cameras import ImageInfo, assign_cameras
from romacli.colmap.database import write_database
from romacli.colmap.options import CameraOptions, VerifyOptions
from romacli.colmap.poses import compare_poses, read_poses
from romacli.errors import InputError, NothingFoundError, StoreError
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import reconstruct
from romacli.mapping.signals import signals_end_the_process

FIXED = {"refine_intrinsics": False, "num_threads": 1}


@pytest.fixture(scope="module")
def scene():
    return make_scene(6)


@pytest.fixture(scope="module")
def database(scene, tmp_path_factory):
    path = tmp_path_factory.mktemp("six images") / "database.db"
    scene.write(path)
    return path


def read_model(folder):
    return load_pycolmap().Reconstruction(folder)


def test_keypoints_that_are_not_sure_join_the_model_where_they_fit_and_move_no_camera(tmp_path):
    exact = make_scene(6, noise_px=0.1)
    rng = np.random.default_rng(1)
    sure, wrong, places = {}, {}, {}
    for name, xy in exact.keypoints.items():
        draw = rng.random(len(xy))
        sure[name] = draw > 0.25
        # All of the others have the same offset, which would rotate a camera; some are elsewhere.
        wrong[name], angle = draw < 0.03, rng.uniform(0, 2 * np.pi, len(xy))
        far = 25 * np.stack((np.cos(angle), np.sin(angle)), axis=1)
        places[name] = np.where(wrong[name][:, None], xy + far, xy + np.where(sure[name], 0, 0.6)[:, None])
    scene = replace(exact, keypoints={name: xy.astype(np.float32) for name, xy in places.items()})
    given = scene.write(tmp_path / "all.db", sure=sure)
    assert given.inliers < 0.65 * given.matches
    alone = {
        pair: rows[np.all([sure[name][rows[:, side]] for side, name in enumerate(pair)], axis=0)]
        for pair, rows in scene.matches.items()
    }
    scene.write(tmp_path / "sure.db", matches=alone.items())
    made = {
        name: reconstruct(tmp_path / f"{name}.db", tmp_path, tmp_path / name, MapperOptions("incremental", **FIXED))
        for name in ("all", "sure")
    }
    assert made["all"].observations > 1.25 * made["sure"].observations
    found = {name: read_poses(tmp_path / name / "0") for name in made}
    for name, pose in found["sure"].items():
        assert np.allclose(pose.rotation, found["all"][name].rotation, atol=1e-8)
        assert np.allclose(pose.translation, found["all"][name].translation, atol=1e-8)
    for image in read_model(tmp_path / "all" / "0").images.values():
        mapped = np.array([point.has_point3D() for point in image.points2D])
        assert mapped[wrong[image.name]].mean() < 0.2
        assert mapped[~wrong[image.name]].mean() > 0.95


@pytest.mark.parametrize("mapper", ["incremental", "global", "hierarchical"])
@pytest.mark.parametrize("method", ["magsac", "colmap"])
def test_both_mappers_find_the_true_poses(scene, tmp_path, mapper, method):
    scene.write(tmp_path / "a.db", verify=VerifyOptions(method=method, num_threads=1))
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", MapperOptions(mapper, **FIXED))
    assert (summary.registered, summary.images, summary.models) == (6, 6, 1)
    assert summary.points3D > 200
    assert 3 < summary.mean_track_length <= 6
    assert summary.mean_reprojection_error < 0.6
    errors = compare_poses(read_poses(tmp_path / "sparse" / "0"), scene.poses)
    assert errors.missing == ()
    assert errors.rotation_deg.max() < 0.3
    assert errors.position.max() < 0.01


def test_few_keypoints_that_are_a_few_pixels_off_hardly_move_the_cameras(tmp_path):
    exact = make_scene(6, noise_px=0.05)
    rng = np.random.default_rng(1)
    shifts = {name: 2.0 * (rng.random((len(xy), 1)) < 0.15) for name, xy in exact.keypoints.items()}
    keypoints = {name: (xy + shifts[name] * [1, 0.3]).astype(np.float32) for name, xy in exact.keypoints.items()}
    scene = replace(exact, keypoints=keypoints)
    scene.write(tmp_path / "a.db", verify=VerifyOptions(max_error_px=4, num_threads=1))
    reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", MapperOptions(**FIXED))
    errors = compare_poses(read_poses(tmp_path / "sparse" / "0"), scene.poses)
    assert errors.position.mean() < 0.001


@pytest.mark.parametrize("mapper", ["incremental", "global", "hierarchical"])
def test_guessed_focal_lengths_are_refined(scene, tmp_path, mapper):
    scene.write(tmp_path / "a.db", cameras=CameraOptions())
    reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", MapperOptions(mapper, num_threads=1))
    (camera,) = read_model(tmp_path / "sparse" / "0").cameras.values()
    assert camera.mean_focal_length() == pytest.approx(700, rel=0.03)


@pytest.mark.parametrize("mapper", ["incremental", "global", "hierarchical"])
def test_intrinsics_that_are_not_to_be_refined_stay_bit_for_bit(database, tmp_path, mapper):
    reconstruct(database, tmp_path, tmp_path / "sparse", MapperOptions(mapper, **FIXED))
    (camera,) = read_model(tmp_path / "sparse" / "0").cameras.values()
    assert camera.params.tolist() == list(PARAMS)


@pytest.mark.parametrize("mapper", ["auto", "incremental", "global", "hierarchical"])
@pytest.mark.parametrize("count", [2, 3])
def test_few_images_make_a_model(tmp_path, mapper, count):
    scene = make_scene(count)
    scene.write(tmp_path / "a.db")
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", MapperOptions(mapper, **FIXED))
    assert summary.registered == count
    assert summary.points3D > 150


def test_same_seed_on_one_thread_gives_the_same_model(database, tmp_path):
    options = MapperOptions(seed=4, **FIXED)
    for run in "ab":
        reconstruct(database, tmp_path, tmp_path / run, options)
    poses = [read_poses(tmp_path / run / "0") for run in "ab"]
    for name, pose in poses[0].items():
        assert np.array_equal(pose.rotation, poses[1][name].rotation)
        assert np.array_equal(pose.translation, poses[1][name].translation)


@pytest.mark.parametrize("mapper", ["auto", "incremental", "global", "hierarchical"])
def test_the_largest_of_several_models_is_number_0(tmp_path, mapper):
    small, large = make_scene([f"a/{n}.jpg" for n in range(4)]), make_scene([f"b/{n}.jpg" for n in range(6)], seed=1)
    names = small.names + large.names
    cameras, camera_of = assign_cameras([ImageInfo(name, (640, 480)) for name in names], GIVEN)
    write_database(
        tmp_path / "a.db",
        cameras=cameras,
        camera_of=camera_of,
        keypoints=small.keypoints | large.keypoints,
        matches=(small.matches | large.matches).items(),
        verify=VerifyOptions(num_threads=1),
    )
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", MapperOptions(mapper, **FIXED))
    assert (summary.models, summary.registered, summary.images) == (2, 6, 10)
    assert sorted(one.name for one in (tmp_path / "sparse").iterdir()) == ["0", "1"]
    assert set(read_poses(tmp_path / "sparse" / "0")) == set(large.names)
    assert set(read_poses(tmp_path / "sparse" / "1")) == set(small.names)


def test_photographs_that_colmap_cannot_read_are_registered_all_the_same(tmp_path):
    scene = make_scene([f"größe {n}.webp" for n in range(4)])
    for name in scene.names:
        cv2.imencode(".webp", np.full((480, 640, 3), 90, np.uint8))[1].tofile(tmp_path / name)
    scene.write(tmp_path / "a.db")
    reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", MapperOptions(**FIXED))
    assert set(read_poses(tmp_path / "sparse" / "0")) == set(scene.names)


def test_gps_gives_the_model_its_scale_where_the_mapper_is_told_to_use_it(tmp_path):
    scene = make_scene(6)
    centres = {name: pose.centre for name, pose in scene.poses.items()}
    metres_per_degree = 111_320  # per degree of latitude; and of longitude at the equator
    gps = {name: (z / metres_per_degree, x / metres_per_degree, 40 - y) for name, (x, y, z) in centres.items()}
    scene.write(tmp_path / "a.db", gps=gps)
    options = MapperOptions(settings=(("use_prior_position", True),), **FIXED)
    reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", options)
    found = read_poses(tmp_path / "sparse" / "0")
    first, last = scene.names[0], scene.names[-1]
    length = np.linalg.norm(found[first].centre - found[last].centre)
    assert length == pytest.approx(np.linalg.norm(centres[first] - centres[last]), rel=0.02)


def test_database_stays_as_it_was(database, tmp_path):
    before = database.read_bytes()
    reconstruct(database, tmp_path, tmp_path / "sparse", MapperOptions("global", num_threads=1))
    assert database.read_bytes() == before
    assert [one.name for one in database.parent.iterdir()] == [database.name]


def test_progress_hears_of_the_first_pair_and_of_every_image_after_it(database, tmp_path):
    counts = []
    summary = reconstruct(database, tmp_path, tmp_path / "sparse", MapperOptions(**FIXED), progress=counts.append)
    assert counts == [2] + [1] * (summary.registered - 2)


def test_old_models_give_way_to_new_ones(database, tmp_path):
    sparse = tmp_path / "sparse"
    reconstruct(database, tmp_path, sparse, MapperOptions(**FIXED))
    shutil.copytree(sparse / "0", sparse / "1")
    reconstruct(database, tmp_path, sparse, MapperOptions(**FIXED))
    assert [one.name for one in sparse.iterdir()] == ["0"]
    assert [one.name for one in tmp_path.iterdir()] == ["sparse"]


def test_a_mapper_that_breaks_leaves_the_old_models(database, tmp_path):
    sparse = tmp_path / "sparse"
    reconstruct(database, tmp_path, sparse, MapperOptions(**FIXED))
    before = {one.name: one.read_bytes() for one in (sparse / "0").iterdir()}

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconstruct(database, tmp_path, sparse, MapperOptions(**FIXED), progress=interrupt)
    assert {one.name: one.read_bytes() for one in (sparse / "0").iterdir()} == before
    assert [one.name for one in tmp_path.iterdir()] == ["sparse"]


@pytest.mark.parametrize("foreign", ["notes.txt", "0/notes.txt", "model"])
def test_a_folder_that_holds_something_else_is_left_alone(database, tmp_path, foreign):
    path = tmp_path / "sparse" / foreign
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    with pytest.raises(StoreError, match="is no COLMAP model and would be lost"):
        reconstruct(database, tmp_path, tmp_path / "sparse", MapperOptions(**FIXED))
    assert path.read_text() == "precious"


def test_a_database_without_verified_pairs_makes_no_model(scene, tmp_path):
    scene.write(tmp_path / "a.db", matches=[])
    with pytest.raises(NothingFoundError, match="has 6 images, but no verified pair"):
        reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse")
    assert not (tmp_path / "sparse").exists()


def test_pairs_that_colmap_would_ignore_are_spoken_of(database, tmp_path):
    shutil.copy(database, tmp_path / "a.db")
    with closing(sqlite3.connect(tmp_path / "a.db")) as copy:
        copy.execute("UPDATE two_view_geometries SET config = 0")
        copy.commit()
    with pytest.raises(NothingFoundError, match="12 pairs, but their geometries have no configuration"):
        reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse")


@pytest.mark.parametrize("mapper", ["incremental", "global", "hierarchical"])
def test_no_model_is_an_error_with_numbers(tmp_path, mapper):
    scene = make_scene(3, points=60, seed=2)
    rng = np.random.default_rng(0)
    for name, xy in scene.keypoints.items():
        scene.keypoints[name] = rng.uniform(0, 480, xy.shape).astype(np.float32)
    scene.write(tmp_path / "a.db", verify=VerifyOptions(min_inlier_ratio=0.0, min_inliers=8, max_error_px=3))
    with pytest.raises(NothingFoundError, match=rf"{mapper} mapper found no model in \d verified pairs of 3 images"):
        reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", MapperOptions(mapper, **FIXED))
    assert [one.name for one in tmp_path.iterdir()] == ["a.db"]


def test_a_missing_folder_of_photographs_is_missing(database, tmp_path):
    with pytest.raises(InputError, match="photos is missing"):
        reconstruct(database, tmp_path / "photos", tmp_path / "sparse")


def test_a_missing_database_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"none\.db is missing"):
        reconstruct(tmp_path / "none.db", tmp_path, tmp_path / "sparse")


def test_a_file_that_is_no_database_is_none(tmp_path):
    (tmp_path / "a.db").write_bytes(b"text" * 1000)
    with pytest.raises(StoreError, match="cannot be read as a COLMAP database"):
        reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse")


MAPPING = """
import os, sys, threading
sys.path[:0] = [{tests!r}, {root!r}]
from pathlib import Path
from support.small_scene import make_scene
from romacli.colmap.binding import load_pycolmap
from romacli.mapping.signals import signals_end_the_process
make_scene(12, points=1500).write(Path("scene.db"))
Path("photos").mkdir()
Path("models").mkdir()
pycolmap = load_pycolmap()
with signals_end_the_process():
    threading.Timer(0.5, os.kill, (os.getpid(), {number})).start()
    while True:
        pycolmap.global_mapping("scene.db", "photos", "models")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_global_mapper_at_once_with_a_sentence(tmp_path, number, code):
    tests = Path(__file__).resolve().parents[1]
    program = MAPPING.format(tests=str(tests), root=str(tests.parent), number=int(number))
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == code, run.stderr
    assert "stopped in the mapper" in run.stderr


def test_a_lost_terminal_ends_native_code_that_cannot_say_so():
    program = (
        "import signal, time; from romacli.mapping.signals import signals_end_the_process\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "with signals_end_the_process():\n"
        "    signal.raise_signal(signal.SIGHUP)\n"
        "    time.sleep(20)\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run([sys.executable, "-c", program], stderr=writer, timeout=60)
    os.close(writer)
    assert run.returncode == 129


def test_signals_are_given_back_after_native_code():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with signals_end_the_process():
        assert signal.getsignal(signal.SIGINT) not in handlers
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("known", [False, True])
def test_a_model_without_points_is_no_success(scene, database, tmp_path, monkeypatch, known):
    model = load_pycolmap().Reconstruction()
    monkeypatch.setattr("romacli.mapping.reconstruct.run_mapper", lambda *_: ({0: model}, ()))
    options = MapperOptions(known_poses=tmp_path if known else None)
    with pytest.raises(NothingFoundError, match="found no model in"):
        reconstruct(database, tmp_path, tmp_path / "sparse", options)
    assert not (tmp_path / "sparse").exists()
