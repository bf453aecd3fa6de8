from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from romacli.cli.app import app
from romacli.colmap.pose_files import read_written_poses
from romacli.colmap.poses import Pose
from romacli.errors import InputError
from romacli.eval.model_poses import evaluate_poses

NAMES = ("a.jpg", "b c.jpg", "d.jpg", "e.jpg", "f.jpg")


def turned(degrees: float, axis: int = 2) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.roll(np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]), axis + 1, axis=(0, 1))


@pytest.fixture
def truth() -> dict[str, Pose]:
    rng, poses = np.random.default_rng(2), {}
    for number, name in enumerate(NAMES):
        rotation = turned(20 * number, 1) @ turned(7 * number, 0)
        poses[name] = Pose(rotation, -rotation @ rng.normal(0, 4, 3))
    return poses


def moved(poses: dict[str, Pose]) -> dict[str, Pose]:
    """The same cameras in another frame at half the scale."""
    world, found = turned(33, 0), {}
    for name, pose in poses.items():
        rotation = pose.rotation @ world.T
        found[name] = Pose(rotation, -rotation @ (0.5 * world @ pose.centre + [1, 2, 3]))
    return found


def strecha(folder: Path, poses: dict[str, Pose]) -> Path:
    folder.mkdir()
    for name, pose in poses.items():
        rows = ["100 0 50", "0 100 40", "0 0 1", "0 0 0", *(" ".join(map(repr, r)) for r in pose.rotation.T.tolist())]
        (folder / f"{name}.camera").write_text("\n".join([*rows, " ".join(map(repr, pose.centre.tolist())), "100 80"]))
    return folder


def text(path: Path, poses: dict[str, Pose]) -> Path:
    lines = ["# measured", ""]
    for name, pose in poses.items():
        w = np.sqrt(1 + np.trace(pose.rotation)) / 2
        xyz = (pose.rotation - pose.rotation.T)[[2, 0, 1], [1, 2, 0]] / (4 * w)
        lines.append(" ".join([name, *(repr(float(value)) for value in (w, *xyz, *pose.translation))]))
    path.write_text("\n".join(lines))
    return path


def colmap(folder: Path, poses: dict[str, Pose]) -> Path:
    """A COLMAP text model of cameras without points."""
    folder.mkdir(parents=True)
    (folder / "cameras.txt").write_text("1 PINHOLE 100 80 100 100 50 40\n")
    (folder / "points3D.txt").write_text("")
    rows = text(folder / "poses", poses).read_text().split("\n")[2:]
    split = [row.rsplit(" ", 7) for row in rows]
    images = [f"{number} {' '.join(row[1:])} 1 {row[0]}\n\n" for number, row in enumerate(split, start=1)]
    (folder / "images.txt").write_text("".join(images))
    return folder


def test_another_frame_and_scale_are_no_error(truth: dict[str, Pose]) -> None:
    found = evaluate_poses(moved(truth), truth)
    assert (found.registered, found.truth) == (5, 5)
    assert found.rotation_deg.max() < 1e-4
    assert found.position.max() < 1e-9
    assert min(found.auc.values()) > 0.999


def test_errors_are_in_degrees_and_in_the_unit_of_the_truth(truth: dict[str, Pose]) -> None:
    poses = moved(truth)
    pose = poses["d.jpg"]
    rotation = turned(1.0) @ pose.rotation
    poses["d.jpg"] = Pose(rotation, -rotation @ pose.centre)
    found = evaluate_poses(poses, truth)
    assert found.rotation_deg[2] == pytest.approx(0.8, abs=0.05)  # the best rotation spreads the error
    assert found.position.max() < 1e-9
    # Four of ten pairs are 1 degree off, each on its own.
    assert found.auc[0.3] == pytest.approx(0.6, abs=0.01)
    assert found.auc[10.0] == pytest.approx(0.6 + 0.4 * 0.95, abs=0.03)
    poses = moved(truth)
    away = poses["d.jpg"]
    poses["d.jpg"] = Pose(away.rotation, away.translation + 0.05)
    assert 0.05 < evaluate_poses(poses, truth).position[2] < 0.05 * 3**0.5 / 0.5


def test_images_without_a_pose_count_as_wrong(truth: dict[str, Pose]) -> None:
    poses = moved(truth)
    del poses["a.jpg"]
    found = evaluate_poses(poses, truth)
    assert (found.registered, found.truth) == (4, 5)
    assert found.auc[10.0] == pytest.approx(0.6, abs=1e-3)


def test_two_images_have_no_position_error(truth: dict[str, Pose]) -> None:
    poses = {name: pose for name, pose in moved(truth).items() if name in NAMES[:2]}
    assert np.isnan(evaluate_poses(poses, truth).position).all()


@pytest.mark.parametrize("kind", [strecha, text, colmap])
def test_the_truth_is_read_from_each_form(truth: dict[str, Pose], tmp_path: Path, kind) -> None:
    read = read_written_poses(kind(tmp_path / "truth", truth))
    assert read.keys() == truth.keys()
    for name, pose in truth.items():
        np.testing.assert_allclose(read[name].rotation, pose.rotation, atol=1e-9)
        np.testing.assert_allclose(read[name].translation, pose.translation, atol=1e-9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.jpg 1 0 0", "truth:1: 4 columns, expected 8"),
        ("a.jpg 1 0 0 0 0 0 0\na.jpg 1 0 0 0 0 0 0", "truth:2: a.jpg already has a pose"),
        ("a.jpg 2 0 0 0 0 0 0", "quaternion has length 2"),
        ("a.jpg 1 0 0 0 0 0 x", "not a number"),
        ("a.jpg 1 0 0 0 0 0 nan", "not finite"),
        ("# nothing\n", "contains no poses"),
    ],
)
def test_lines_that_are_no_poses_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "truth").write_text(content)
    with pytest.raises(InputError, match=message):
        read_written_poses(tmp_path / "truth")


def test_camera_files_that_are_none_are_refused(tmp_path: Path, truth: dict[str, Pose]) -> None:
    folder = strecha(tmp_path / "truth", truth)
    (folder / "a.jpg.camera").write_text("1 2 3")
    with pytest.raises(InputError, match=r"a\.jpg\.camera contains 3 numbers"):
        read_written_poses(folder)
    (folder / "a.jpg.camera").write_text("1 " * 26)
    with pytest.raises(InputError, match=r"a\.jpg\.camera: the rotation is invalid"):
        read_written_poses(folder)
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match="cannot be read|contains no COLMAP model"):
            read_written_poses(path / "nowhere")


def test_the_command_prints_a_table_and_json(tmp_path: Path, truth: dict[str, Pose]) -> None:
    sparse = colmap(tmp_path / "job/sparse/0", moved(truth)).parent
    words = ["eval", "poses", str(sparse), str(strecha(tmp_path / "truth", truth))]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.stderr
    assert "5 of 5 images" in shown.stdout
    values = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert values["registered"] == 5
    assert list(values["auc"]) == ["0.1", "0.3", "1.0", "3.0", "5.0", "10.0"]
    assert values["position"]["largest"] < 1e-6
    refused = CliRunner().invoke(app, [*words[:3], str(tmp_path / "nowhere")])
    assert refused.exit_code == 3
    assert "nowhere" in refused.stderr
