"""Each format contains the cameras and points of the model, as its readers read them."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.posed_job import FOCAL, SIZE, PosedJob, posed_job
from support.small_job import plane_job
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.colmap.poses import load_model, read_poses
from romacli.export.formats import FORMATS, Format, Source
from romacli.store.hloc import MatchesFile
from romacli.store.ply import read_ply


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> PosedJob:
    return posed_job(tmp_path_factory.mktemp("posed"))


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, words)])


def exported(job: PosedJob, name: str, folder: Path) -> Path:
    result = run(name, job.layout.root, "--images", job.photographs, "-o", folder / name)
    assert result.exit_code == 0, result.stderr
    return folder / name


def test_splats_get_pinhole_cameras_and_photographs(job: PosedJob, tmp_path: Path) -> None:
    folder = exported(job, "undistorted", tmp_path)
    assert sorted(path.name for path in (folder / "images").iterdir()) == sorted(job.poses)
    poses = read_poses(folder / "sparse" / "0")
    for name, pose in job.poses.items():
        np.testing.assert_allclose(poses[name].centre, pose.centre, atol=1e-6)
    assert {path.name for path in folder.iterdir()} == {"images", "sparse"}


def test_another_model_is_exported_beside_the_largest(tmp_path: Path) -> None:
    layout = posed_job(tmp_path).layout
    shutil.copytree(layout.sparse / "0", layout.sparse / "1")
    (layout.sparse / "1" / "cameras.txt").write_text("1 SIMPLE_PINHOLE 640 480 701 320 240\n")
    assert "the largest of 2 models" in run("text", layout.root).stderr
    assert run("text", layout.sparse / "1").exit_code == 0
    assert [next(iter(load_model(layout.root / name).cameras.values())).params[0] for name in ("text", "text-1")] == [
        FOCAL,
        701,
    ]


@pytest.mark.parametrize(
    "camera",
    [
        "SIMPLE_PINHOLE 640 480 700 320 240",
        "SIMPLE_RADIAL 640 480 700 320 240 0",
        "OPENCV 640 480 700 710 320 240 0 0 0 0",
    ]
    + ["OPENCV_FISHEYE 640 480 250 250 320 240 0 0 0 0", "SIMPLE_FISHEYE 640 480 150 320 240"],
)
def test_cameras_without_distortion_become_pinholes_too(tmp_path: Path, camera: str) -> None:
    job = posed_job(tmp_path)
    (job.layout.sparse / "0" / "cameras.txt").write_text(f"1 {camera}\n")
    model, _, _, focal, *_ = camera.split()
    (made,) = load_model(exported(job, "undistorted", tmp_path) / "sparse" / "0").cameras.values()
    assert made.model.name == "PINHOLE"
    assert made.params[0] == pytest.approx(float(focal))
    before, after = (cv2.imread(str(folder / "0.png")) for folder in (job.photographs, tmp_path / "undistorted/images"))
    assert np.array_equal(before, after) == ("FISHEYE" not in model)


def test_photographs_that_colmap_skips_are_named(tmp_path: Path) -> None:
    job = posed_job(tmp_path)
    first, *others = sorted(job.poses)
    (job.layout.sparse / "0" / "cameras.txt").write_text("1 SIMPLE_RADIAL 640 480 700 320 240 0.1\n")
    (job.photographs / first).write_bytes(b"GIF89a")
    result = run("undistorted", job.layout.root, "--images", job.photographs, "-o", tmp_path / "splats")
    assert result.exit_code == 3
    assert f"COLMAP cannot read 1 of the model's {len(others) + 1} photographs: {first}. Convert" in result.stderr
    assert not (tmp_path / "splats").exists()


@pytest.mark.parametrize("name", ["text", "ply", "undistorted", "bundler"])
def test_a_full_disk_is_no_success(job: PosedJob, tmp_path: Path, name: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        result = run(name, job.layout.root, "--images", job.photographs, "-o", tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.exit_code == 6
    assert f"{name} cannot be written: the disk or quota is full" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_nerfstudio_sees_a_point_where_the_photograph_does(job: PosedJob, tmp_path: Path) -> None:
    folder = exported(job, "nerfstudio", tmp_path)
    content = json.loads((folder / "transforms.json").read_text())
    assert content["camera_model"] == "OPENCV"
    for frame in content["frames"]:
        pose = job.poses[Path(frame["file_path"]).name]
        assert Path(frame["file_path"]).is_file()
        in_camera = np.linalg.inv(np.array(frame["transform_matrix"])) @ [0.3, 0.2, 0.1, 1]
        x = frame["fl_x"] * in_camera[0] / -in_camera[2] + frame["cx"]
        y = -frame["fl_y"] * in_camera[1] / -in_camera[2] + frame["cy"]
        seen = pose.rotation @ [0.3, 0.2, 0.1] + pose.translation
        expected = seen[:2] / seen[2] * FOCAL + np.array(SIZE) / 2
        np.testing.assert_allclose([x, y], expected, atol=1e-6)
    assert len(read_ply(folder / "sparse_pc.ply")[0]) == len(read_ply(exported(job, "ply", tmp_path) / "points.ply")[0])


def test_bundler_reprojects_its_own_observations(job: PosedJob, tmp_path: Path) -> None:
    folder = exported(job, "bundler", tmp_path)
    words = (folder / "bundle.out").read_text().split("\n", 1)[1].split()
    assert (folder / "list.txt").read_text().split() == list(job.poses)
    num_cameras, num_points, *numbers = words
    values = np.array(numbers, float)
    cameras = values[: 15 * int(num_cameras)].reshape(-1, 15)
    rest = list(values[15 * int(num_cameras) :])
    for _ in range(int(num_points)):
        point, count = np.array(rest[:3]), int(rest[6])
        views, rest = np.array(rest[7 : 7 + 4 * count]).reshape(-1, 4), rest[7 + 4 * count :]
        for camera, _, x, y in views:
            focal, rotation, translation = (
                cameras[int(camera)][0],
                cameras[int(camera)][3:12],
                cameras[int(camera)][12:],
            )
            seen = rotation.reshape(3, 3) @ point + translation
            np.testing.assert_allclose(-seen[:2] / seen[2] * focal, [x, y], atol=0.01)
    assert not rest


def test_text_is_colmaps(job: PosedJob, tmp_path: Path) -> None:
    poses = read_poses(exported(job, "text", tmp_path))
    assert poses.keys() == job.poses.keys()


def test_matches_are_those_of_the_hloc_file(tmp_path: Path) -> None:
    names = ("0.png", "1.png", "b/2.png")
    layout, _ = plane_job(tmp_path / "plain", names)
    result = run("matches", layout.root, "-o", tmp_path / "text")
    assert result.exit_code == 0, result.stderr
    blocks = (tmp_path / "text" / "matches.txt").read_text().split("\n\n")[:-1]
    with MatchesFile(layout.matches) as file:
        assert [tuple(block.split("\n")[0].split(" ")) for block in blocks] == file.pairs(names)
        first = file.matches(*file.pairs(names)[0]).indices
    assert np.array([line.split() for line in blocks[0].split("\n")[1:]], int).tolist() == first.tolist()


def test_names_that_the_format_cannot_hold_are_refused(tmp_path: Path) -> None:
    layout, _ = plane_job(tmp_path)
    result = run("matches", layout.root, "-o", tmp_path / "text")
    assert result.exit_code == 3
    assert "blank in its name" in result.stderr


def test_what_cannot_be_exported_is_a_sentence(job: PosedJob, tmp_path: Path) -> None:
    unknown = run("obj", job.layout.root)
    assert unknown.exit_code == 2
    assert all(name in unknown.stderr for name in FORMATS)
    assert "no model" in run("text", tmp_path).stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    refused = run("text", job.layout.root, "-o", tmp_path / "full")
    assert refused.exit_code == 6
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"
    gone = run("nerfstudio", job.layout.root, "--images", tmp_path, "-o", tmp_path / "out")
    assert gone.exit_code == 3
    assert "lacks 5 of the model's 5" in gone.stderr
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_format_is_a_function_and_a_row(job: PosedJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_names(source: Source, folder: Path) -> None:
        names = sorted(read_poses(source.model))
        (folder / "names.txt").write_text("\n".join(names))

    monkeypatch.setitem(FORMATS, "names", Format("names", "names of the images", write_names))
    assert (exported(job, "names", tmp_path) / "names.txt").read_text().split() == sorted(job.poses)


def openmvg(job: PosedJob, folder: Path) -> dict[str, Any]:
    return json.loads((exported(job, "openmvg", folder) / "sfm_data.json").read_text())


def test_openmvg_reprojects_its_own_observations(job: PosedJob, tmp_path: Path) -> None:
    content = openmvg(job, tmp_path)
    assert content["sfm_data_version"] == "0.3"
    views = {each["key"]: each["value"]["ptr_wrapper"]["data"] for each in content["views"]}
    (intrinsic,) = content["intrinsics"]
    assert intrinsic["value"]["polymorphic_name"] == "pinhole"
    camera = intrinsic["value"]["ptr_wrapper"]["data"]
    poses = {each["key"]: each["value"] for each in content["extrinsics"]}
    assert {view["filename"] for view in views.values()} == set(job.poses)
    assert all((Path(content["root_path"]) / view["filename"]).is_file() for view in views.values())
    count = 0
    for point in content["structure"]:
        for seen in point["value"]["observations"]:
            view = views[seen["key"]]
            assert view["id_intrinsic"] == intrinsic["key"]
            pose = poses[view["id_pose"]]
            x, y, z = np.array(pose["rotation"]) @ (np.array(point["value"]["X"]) - pose["center"])
            pixel = camera["focal_length"] * np.array([x, y]) / z + camera["principal_point"]
            np.testing.assert_allclose(pixel, seen["value"]["x"], atol=1e-5)
            count += 1
    assert count > 1000
    pointers = [each["value"]["ptr_wrapper"]["id"] for each in (*content["views"], *content["intrinsics"])]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize(
    ("model", "numbers", "kind", "place", "values"),
    [
        ("SIMPLE_RADIAL", "700 320 240 .1", "pinhole_radial_k1", "disto_k1", [0.1]),
        ("RADIAL", "700 320 240 .1 .2", "pinhole_radial_k3", "disto_k3", [0.1, 0.2, 0]),
        ("OPENCV", "700 700 320 240 .1 .2 .3 .4", "pinhole_brown_t2", "disto_t2", [0.1, 0.2, 0, 0.3, 0.4]),
        ("RADIAL_FISHEYE", "700 320 240 .1 .2", "fisheye", "fisheye", [0.1, 0.2, 0, 0]),
        ("OPENCV_FISHEYE", "700 700 320 240 .1 .2 .3 .4", "fisheye", "fisheye", [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_openmvg_has_the_cameras_that_it_knows(
    tmp_path: Path, model: str, numbers: str, kind: str, place: str, values: list[float]
) -> None:
    job = posed_job(tmp_path, count=2)
    (job.layout.sparse / "0" / "cameras.txt").write_text(f"1 {model} {SIZE[0]} {SIZE[1]} {numbers}\n")
    (intrinsic,) = openmvg(job, tmp_path)["intrinsics"]
    assert intrinsic["value"]["polymorphic_name"] == kind
    data = intrinsic["value"]["ptr_wrapper"]["data"]
    assert data[place] == values
    assert data.get("value0", data)["principal_point"] == [319.5, 239.5]


def test_text_refuses_names_that_its_readers_would_cut(tmp_path: Path) -> None:
    job = posed_job(tmp_path)
    model = load_model(job.layout.sparse / "0")
    image = next(iter(model.images.values()))
    image.name = " " + image.name
    model.write_binary(job.layout.sparse / "0")
    result = run("text", job.layout.root, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert f"cannot hold the name {image.name!r}" in result.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["openmvg", "bundler"])
def test_a_format_with_one_focal_length_refuses_two(tmp_path: Path, name: str) -> None:
    job = posed_job(tmp_path, count=2)
    (job.layout.sparse / "0" / "cameras.txt").write_text(f"1 PINHOLE {SIZE[0]} {SIZE[1]} 700 690 320 240\n")
    result = run(name, job.layout.root, "--images", job.photographs, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "one focal length" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("numbers", "what"),
    [("700 700 328 240 0 0 0 0", "+8.0, +0.0 px"), ("700 700 320 240 .1 0 .002 0", "tangential distortion")],
)
def test_bundler_refuses_what_it_would_leave_out(tmp_path: Path, numbers: str, what: str) -> None:
    job = posed_job(tmp_path, count=2)
    (job.layout.sparse / "0" / "cameras.txt").write_text(f"1 OPENCV {SIZE[0]} {SIZE[1]} {numbers}\n")
    result = run("bundler", job.layout.root, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert what in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_bundler_takes_opencv_cameras_without_either(tmp_path: Path) -> None:
    job = posed_job(tmp_path, count=2)
    (job.layout.sparse / "0" / "cameras.txt").write_text(f"1 OPENCV {SIZE[0]} {SIZE[1]} 700 700 320 240 .1 0 1e-6 0\n")
    assert run("bundler", job.layout.root, "-o", tmp_path / "out").exit_code == 0
