"""A dense cloud from exact warps lies on the true surface; wrong warps, missing photographs and models are handled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.posed_job import FOCAL, GRID, NORMAL, RED, SIZE, PosedJob, posed_job
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.job.outputs.outdated import outdated
from romacli.mapping.cameras import read_cameras
from romacli.store.ply import read_ply

POINT = np.dtype([("xyz", "<f4", 3), ("normal", "<f4", 3), ("rgb", "u1", 3)])


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> PosedJob:
    return posed_job(tmp_path_factory.mktemp("posed"))


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["densify", *map(str, words)])


def points_of(cloud: Path) -> np.ndarray:
    _, _, body = cloud.read_bytes().partition(b"end_header\n")
    return np.frombuffer(body, POINT)


def visibility_of(path: Path) -> list[np.ndarray]:
    data = path.read_bytes()
    (count,), at, found = np.frombuffer(data, "<u8", 1), 8, []
    for _ in range(count):
        (length,) = np.frombuffer(data, "<u4", 1, at)
        found.append(np.frombuffer(data, "<u4", length, at + 4))
        at += 4 * (length + 1)
    assert at == len(data)
    return found


def test_points_lie_on_the_surface_once_each(job: PosedJob) -> None:
    result = run(job.layout.root, "--images", job.photographs, "--json")
    assert result.exit_code == 0, result.stderr
    values = json.loads(result.stdout)
    points = points_of(job.layout.cloud)
    assert values["points"] == len(points)
    # About one point per cell that several cameras see, not one per cell and camera.
    assert 0.5 * GRID[0] * GRID[1] < len(points) < 2.5 * GRID[0] * GRID[1]
    assert np.abs(points["xyz"] @ NORMAL).max() < 0.01
    assert np.abs(points["normal"] @ NORMAL).min() > 0.99
    towards = job.poses["2.png"].centre - points["xyz"]
    assert ((points["normal"] * towards).sum(1) > 0).all()
    assert np.abs(points["rgb"].astype(int) - RED).max() <= 1
    seen = visibility_of(job.layout.cloud.with_name("fused.ply.vis"))
    assert len(seen) == len(points)
    assert all(len(images) >= 3 and (np.diff(images.astype(int)) > 0).all() and images.max() < 5 for images in seen)


def test_a_cloud_and_depth_maps_of_an_earlier_model_are_told(tmp_path: Path) -> None:
    layout = posed_job(tmp_path).layout
    assert run(layout.root, "-o", tmp_path / "other.ply", "--depth-maps").exit_code == 0
    assert outdated(layout) == []
    assert run(layout.root).exit_code == 0
    assert outdated(layout) == []
    with (layout.sparse / "0" / "points3D.txt").open("a") as file:
        file.write("# changed\n")
    assert [(one.file, one.source, one.command) for one in outdated(layout)] == [
        ("dense/fused.ply", "sparse/0", "romacli densify"),
        ("dense/depth_maps", "sparse/0", "romacli densify --depth-maps"),
    ]
    assert run(layout.root).exit_code == 0
    assert [one.file for one in outdated(layout)] == ["dense/depth_maps"]


def test_another_model_has_files_of_its_own(tmp_path: Path) -> None:
    layout = posed_job(tmp_path).layout
    shutil.copytree(layout.sparse / "0", layout.sparse / "1")
    told = run(layout.root)
    assert f"{layout.sparse / '0'} is the largest of 2 models" in told.stderr
    first = layout.cloud.read_bytes()
    cameras = layout.sparse / "1" / "cameras.txt"
    cameras.write_text(cameras.read_text().replace(str(FOCAL), str(FOCAL + 1)))
    result = run(layout.sparse / "1", "--depth-maps")
    assert result.exit_code == 0, result.stderr
    assert "largest" not in result.stderr
    assert layout.cloud.read_bytes() == first != (layout.dense / "1" / "fused.ply").read_bytes()
    assert not layout.depth_maps.exists()
    assert outdated(layout) == []
    cameras.write_text(f"{cameras.read_text()}# changed\n")
    (again, maps) = outdated(layout)
    assert (again.file, again.source) == ("dense/1/fused.ply", "sparse/1")
    assert again.command == f"romacli densify {layout.sparse / '1'}"
    assert maps.file == "dense/1/depth_maps"
    (layout.dense / "1" / "fused.ply").write_bytes(b"damaged")
    checked = CliRunner().invoke(app, ["check", str(layout.root)])
    assert "dense/1/fused.ply" in checked.stderr + checked.stdout


def test_a_wrong_warp_is_outvoted(tmp_path: Path) -> None:
    wrong = posed_job(tmp_path, shift=lambda pair: 25.0 if pair == ("1.png", "2.png") else 0.0)
    assert run(wrong.layout.root).exit_code == 0
    points = points_of(wrong.layout.cloud)
    assert len(points) > 0.5 * GRID[0] * GRID[1]
    assert np.abs(points["xyz"] @ NORMAL).max() < 0.02


def test_depth_maps_are_depths(job: PosedJob) -> None:
    assert run(job.layout.root, "--depth-maps").exit_code == 0
    width, height, channels, body = (job.layout.depth_maps / "2.png.geometric.bin").read_bytes().split(b"&", 3)
    assert (int(width), int(height), int(channels)) == (GRID[1], GRID[0], 1)
    depths = np.frombuffer(body, "<f4")
    middle = depths.reshape(GRID)[GRID[0] // 2, GRID[1] // 2]
    assert middle == pytest.approx(np.linalg.norm(job.poses["2.png"].centre), rel=0.02)
    assert len(list(job.layout.depth_maps.glob("*.bin"))) == 5


@pytest.mark.parametrize("model", ["EQUIRECTANGULAR 640 320 640 320", "SIMPLE_PINHOLE 640 480 500 320 240"])
def test_a_pixel_at_the_centre_is_a_ray_of_a_focal_length(tmp_path: Path, model: str) -> None:
    folder = posed_job(tmp_path).layout.sparse / "0"
    (folder / "cameras.txt").write_text(f"1 {model}\n")
    camera = read_cameras(folder)[0]
    assert camera.is_spherical == ("EQUI" in model)
    centre = np.array(camera.size) / 2
    assert camera.rays(centre + [[1, 0], [0, 1]]) == pytest.approx(np.eye(2) / camera.focal_px, rel=1e-3)


def test_photographs_that_are_gone_leave_points_grey_and_are_named(job: PosedJob, tmp_path: Path) -> None:
    some = tmp_path / "photos"
    shutil.copytree(job.photographs, some)
    (some / "3.png").unlink()
    result = run(job.layout.root, "--images", some, "-o", tmp_path / "cloud.ply")
    assert result.exit_code == 0
    assert "1 photograph is missing" in result.stderr
    assert "3.png" in result.stderr
    assert {tuple(colour) for colour in points_of(tmp_path / "cloud.ply")["rgb"]} == {RED, (128, 128, 128)}


def test_what_cannot_be_made_dense_is_a_sentence(job: PosedJob, tmp_path: Path) -> None:
    assert "contains no job" in run(tmp_path).stderr
    two = posed_job(tmp_path / "two", count=2)
    few = run(two.layout.root)
    assert few.exit_code == 5
    assert "lower --min-views" in few.stderr
    shutil.rmtree(two.layout.journal)
    assert "need a dense matcher" in run(two.layout.root).stderr
    shutil.rmtree(two.layout.sparse)
    assert "contains no model" in run(two.layout.root).stderr
    other = tmp_path / "other"
    shutil.copytree(job.layout.root, other)
    cameras = other / "sparse" / "0" / "cameras.txt"
    cameras.write_text(cameras.read_text().replace(str(SIZE[0]), "320", 1))
    result = run(other)
    assert result.exit_code == 3
    assert "matched at 640x480" in result.stderr


def test_points_are_read_back(job: PosedJob) -> None:
    run(job.layout.root)
    xyz, triangles = read_ply(job.layout.cloud)
    assert triangles is None
    np.testing.assert_array_equal(xyz.astype(np.float32), points_of(job.layout.cloud)["xyz"])
