"""Distances between clouds, and the command that reports them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.posed_job import posed_job
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.eval.cloud import nearest, one_per_voxel, read_reference, score_cloud
from romacli.store.ply import write_ply

SQUARE = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
FACES = (
    "element face 2\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n"
)


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["eval", "cloud", *map(str, words)])


def write(path: Path, xyz: np.ndarray) -> Path:
    write_ply(path, xyz, np.zeros_like(xyz), np.zeros(xyz.shape, np.uint8))
    return path


def test_nearest_is_exact_far_from_the_origin() -> None:
    rng = np.random.default_rng(0)
    points, others = rng.random((300, 3)) + 1e4, rng.random((500, 3)) + 1e4
    expected = np.linalg.norm(points[:, None] - others, axis=-1).min(1)
    np.testing.assert_allclose(nearest(points, others), expected, atol=1e-5)


def test_shares_at_tolerances() -> None:
    line = np.column_stack((np.arange(100.0), np.zeros((100, 2))))
    half = line[:50] + [0, 0.3, 0]
    near, far = score_cloud(half, line, [0.1, 0.5], voxel=0)
    assert (near.accuracy, near.completeness, near.f1) == (0, 0, 0)
    assert (far.accuracy, far.completeness) == (1, 0.5)
    assert far.f1 == pytest.approx(2 / 3)


def test_dense_places_weigh_no_more() -> None:
    crowd = np.concatenate((np.zeros((1000, 3)), [[5.0, 0, 0]]))
    assert len(one_per_voxel(crowd, 1.0)) == 2
    assert score_cloud(crowd, np.zeros((1, 3)), [1.0], voxel=1.0)[0].accuracy == 0.5


def test_a_mesh_is_its_surface(tmp_path: Path) -> None:
    (tmp_path / "square.ply").write_text(SQUARE + FACES)
    points = read_reference(tmp_path / "square.ply")
    assert len(points) > 100_000
    np.testing.assert_allclose(points.mean(0), [0.5, 0.5, 0], atol=0.01)
    assert ((points >= 0) & (points <= 1)).all()


def test_the_command_aligns_by_cameras(tmp_path: Path) -> None:
    job, rng = posed_job(tmp_path), np.random.default_rng(0)
    xyz = rng.random((2000, 3)).astype(np.float32)
    cloud, reference = write(tmp_path / "a.ply", xyz), write(tmp_path / "b.ply", 3 * xyz + 1)
    truth = tmp_path / "truth.txt"
    lines = []
    for line in (job.layout.sparse / "0" / "images.txt").read_text().splitlines()[::2]:
        _, *numbers, _, name = line.split()
        quaternion, pose = numbers[:4], job.poses[name]
        moved = -pose.rotation @ (3 * pose.centre + 1)
        lines.append(" ".join([name, *quaternion, *map(str, moved)]))
    truth.write_text("\n".join(lines) + "\n")
    result = run(
        cloud, reference, "--model", job.layout.sparse / "0", "--truth", truth, "--tolerances", "0.01", "--json"
    )
    assert result.exit_code == 0, result.stderr
    (score,) = json.loads(result.stdout)["scores"]
    assert (score["accuracy"], score["completeness"]) == (1, 1)
    (apart,) = json.loads(run(cloud, reference, "--tolerances", "0.01", "--json").stdout)["scores"]
    assert apart["accuracy"] < 0.1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a PLY file"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n", "not a PLY file"),
        (SQUARE.encode() + b"end_header\n0 0 0\n1 0", "not a PLY file"),
        (SQUARE.replace("4", "0", 1).encode() + b"end_header\n", "contains no points"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    bad = tmp_path / "bad.ply"
    bad.write_bytes(content)
    result = run(bad, bad)
    assert result.exit_code == 3
    assert words in result.stderr
    assert "bad.ply" in result.stderr


def test_options_that_go_together(tmp_path: Path) -> None:
    assert "Give both" in run("a.ply", "b.ply", "--model", tmp_path).stderr
    assert "--tolerances 0" in run("a.ply", "b.ply", "--tolerances", "0,1").stderr
