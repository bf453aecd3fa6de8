"""A finished map in use, with kills on the way: localize, densify, register, and hloc's own loop on the old map."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.commands import REPOSITORY, hloc_keypoints, hloc_matches, result_of, romacli, romacli_alone

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.pose_files import read_written_poses
from romacli.colmap.poses import Pose, compare_poses, load_model, read_poses

SCENE = REPOSITORY / "examples" / "scene"
OLD, NEW = [f"court_{number:02}.jpg" for number in (5, 7, 9, 11)], ["court_08.jpg", "court_10.jpg"]


def copy(names: list[str], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copy2(SCENE / "images" / name, folder / name)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, and a job with their model."""
    root = tmp_path_factory.mktemp("mapped")
    copy(OLD, root / "photos")
    words = ["-o", root / "job", "--camera-mode", "single", "--json", "-q"]
    result_of(romacli_alone("reconstruct", root / "photos", *words))
    return root


def kill_after_a_record(journal: Path, *words: object) -> None:
    known = set(journal.rglob("*.jnl"))
    running = subprocess.Popen([sys.executable, "-m", "romacli", *map(str, words), "-q"], cwd=REPOSITORY)
    while running.poll() is None and not any(
        path.stat().st_size > 10_000 for path in set(journal.rglob("*.jnl")) - known
    ):
        time.sleep(0.05)
    running.kill()
    assert running.wait() == -signal.SIGKILL


def localized_as_hloc_does(model: Path, job: Path) -> dict[str, Pose]:
    """Poses of the new photographs from the model points of their matches."""
    held = load_model(model)
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


def assert_right(poses: dict[str, Pose], names: list[str]) -> None:
    errors = compare_poses(poses, read_poses(SCENE / "truth"))
    assert set(errors.names) == set(names)
    assert errors.rotation_deg.max() < 0.1
    assert errors.position.max() < 0.005


def test_queries_are_localized_after_a_kill(mapped: Path, tmp_path: Path) -> None:
    copy(NEW, tmp_path / "queries")
    out = tmp_path / "localized"
    words = ["localize", tmp_path / "queries", "--model", mapped / "job", "-o", out]
    kill_after_a_record(out / "journal", *words)
    kept = {path: path.read_bytes() for path in (out / "journal").rglob("*.jnl")}
    assert not (out / "poses.txt").exists()
    values = result_of(romacli(*words, "--json", "-q"))
    assert (values["queries"], values["posed"]) == (2, 2)
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert_right({**read_poses(mapped / "job" / "sparse" / "0"), **read_written_poses(out / "poses.txt")}, [*OLD, *NEW])


def test_a_cloud_is_whole_or_not_there(mapped: Path, tmp_path: Path) -> None:
    job = tmp_path / "job"
    shutil.copytree(mapped / "job", job)
    words = [sys.executable, "-m", "romacli", "densify", str(job)]
    with subprocess.Popen(words, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert any("finding depth" in line for line in running.stderr)
        running.kill()
    assert running.returncode == -signal.SIGKILL
    assert not (job / "dense" / "fused.ply").exists()
    assert result_of(romacli("densify", job, "--json", "-q"))["points"] > 2000
    assert romacli("export", "openmvg", job, "-o", tmp_path / "openmvg").returncode == 0


def test_a_map_takes_in_photographs_and_nothing_that_was_there_moves(tmp_path: Path) -> None:
    photos, job, old = tmp_path / "photos", tmp_path / "job", tmp_path / "old"
    copy(OLD, photos)
    result_of(romacli_alone("reconstruct", photos, "-o", job, "--camera-mode", "single", "--json", "-q"))
    shutil.copytree(job / "sparse" / "0", old)
    with h5py.File(job / "features.h5") as file:
        rows = {name: file[name]["keypoints"][()] for name in OLD}
    copy(NEW, photos)
    kill_after_a_record(job / "journal", "register", photos, "-o", job)
    values = result_of(romacli_alone("register", photos, "-o", job, "--json", "-q"))
    assert (values["added"], values["without"]) == (NEW, [])
    for name in OLD:
        np.testing.assert_array_equal(hloc_keypoints(job / "features.h5", name), rows[name])
    before, after = load_model(old), load_model(job / "sparse" / "0")
    assert all(after.images[key].name == image.name for key, image in before.images.items())
    assert set(before.points3D) <= set(after.points3D)
    for poses in (read_poses(job / "sparse" / "0"), {**read_poses(old), **localized_as_hloc_does(old, job)}):
        assert_right(poses, [*OLD, *NEW])
    assert "are in a model" in romacli_alone("register", photos, "-o", job).stderr
