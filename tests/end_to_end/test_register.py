"""A map of real photographs takes in others: by `register` after a kill, and by hloc's own loop on the old map."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
from support.commands import REPOSITORY, hloc_keypoints, hloc_matches, result_of, romacli_alone

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.poses import Pose, compare_poses, read_model, read_poses

SCENE = REPOSITORY / "examples" / "scene"
OLD, NEW = [f"court_{number:02}.jpg" for number in (5, 7, 9, 11)], ["court_08.jpg", "court_10.jpg"]


def copy(names: list[str], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copy2(SCENE / "images" / name, folder / name)


def kill_after_a_record(photos: Path, job: Path) -> None:
    files = len(list((job / "journal").iterdir()))
    running = subprocess.Popen([sys.executable, "-m", "romacli", "register", photos, "-o", job, "-q"], cwd=REPOSITORY)
    while running.poll() is None and not any(
        path.stat().st_size for path in sorted((job / "journal").iterdir(), key=lambda one: one.stat().st_mtime)[files:]
    ):
        time.sleep(0.05)
    running.kill()
    running.wait()


def localized_as_hloc_does(model: Path, job: Path) -> dict[str, Pose]:
    """Poses of the new photographs by the points that their matches have in a model."""
    held = read_model(model)
    camera = next(iter(held.cameras.values()))
    poses = {}
    for query in NEW:
        places, points = [], []
        for image in held.images.values():
            for row, other in hloc_matches(job / "matches.h5", query, image.name)[0]:
                if image.points2D[other].has_point3D():
                    places.append(hloc_keypoints_of(job, query)[row] + 0.5)
                    points.append(held.points3D[image.points2D[other].point3D_id].xyz)
        found = load_pycolmap().estimate_and_refine_absolute_pose(np.array(places), np.array(points), camera)
        assert found["num_inliers"] > 0.9 * len(points) > 500
        pose = found["cam_from_world"]
        poses[query] = Pose(pose.rotation.matrix(), pose.translation)
    return poses


_READ: dict[tuple[Path, str], np.ndarray] = {}


def hloc_keypoints_of(job: Path, name: str) -> np.ndarray:
    if (job, name) not in _READ:
        _READ[job, name] = hloc_keypoints(job / "features.h5", name).astype(float)
    return _READ[job, name]


def test_a_map_takes_in_photographs_and_nothing_that_was_there_moves(tmp_path: Path) -> None:
    photos, job, old = tmp_path / "photos", tmp_path / "job", tmp_path / "old"
    copy(OLD, photos)
    result_of(romacli_alone("reconstruct", photos, "-o", job, "--camera-mode", "single", "--json", "-q"))
    shutil.copytree(job / "sparse" / "0", old)
    with h5py.File(job / "features.h5") as file:
        rows = {name: file[name]["keypoints"][()] for name in OLD}
    copy(NEW, photos)
    kill_after_a_record(photos, job)
    values = result_of(romacli_alone("register", photos, "-o", job, "--json", "-q"))
    assert (values["added"], values["without"]) == (NEW, [])
    for name in OLD:
        np.testing.assert_array_equal(hloc_keypoints(job / "features.h5", name), rows[name])
    before, after = read_model(old), read_model(job / "sparse" / "0")
    assert all(after.images[key].name == image.name for key, image in before.images.items())
    assert set(before.points3D) <= set(after.points3D)
    truth = read_poses(SCENE / "truth")
    for poses in (read_poses(job / "sparse" / "0"), {**read_poses(old), **localized_as_hloc_does(old, job)}):
        errors = compare_poses(poses, truth)
        assert set(errors.names) == {*OLD, *NEW}
        assert errors.rotation_deg.max() < 0.1
        assert errors.position.max() < 0.005
    assert "are in the model" in romacli_alone("register", photos, "-o", job).stderr
