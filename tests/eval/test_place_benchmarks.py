"""InLoc and Aachen on rendered scenes: true poses end up in the server's file; shuffled truth leaves none."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.benchmark_sets import write_picture
from support.depth_sets import photograph
from support.homography import HomographyMatcher, image_digest
from support.posed_job import FOCAL as PLANE_FOCAL
from support.posed_job import NORMAL as PLANE_NORMAL
from support.posed_job import SIZE as PLANE_SIZE
from support.posed_job import plane_from_image, write_photograph
from support.rendered import SceneMatcher, Shuffled
from support.scene_sets import SIZE, row_of_cameras
from support.scene_sets import written as scene_written
from support.small_scene import look_at
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.colmap.poses import Pose
from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task
from romacli.eval.benchmarks.places.inloc import in_space
from romacli.eval.benchmarks.places.matfile import read_matrix
from romacli.eval.benchmarks.solvers import EssentialSolver, PosedTruth
from romacli.geometry.epipolar import rotation_angle_deg
from romacli.matchers.registry import MATCHERS
from romacli.synthetic.scenes import Camera
from romacli.types import MatcherSpec

QUERY, FLOOR = "query/iphone7/IMG_1.JPG", "database/cutouts/DUC1/024"
FOCAL, QUERY_SIZE = 4032 * 28 / 36, (800, 600)
TURN, SHIFT = cv2.Rodrigues(np.array([0.0, 0.3, 0.1]))[0], np.array([1.0, 2, 3])  # from the scan to the building


def element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + b"\0" * (-len(body) % 8)


def mat_file(name: str, values: np.ndarray) -> bytes:
    """A level 5 file with one compressed array of doubles, its name as a small element where it fits."""
    small = len(name) <= 4
    label = struct.pack("<HH", 1, len(name)) + name.encode().ljust(4, b"\0") if small else element(1, name.encode())
    body = element(6, struct.pack("<II", 6, 0)) + element(5, np.array(values.shape, "<i4").tobytes()) + label
    body += element(9, np.asarray(values, "<f8").tobytes(order="F"))
    packed = zlib.compress(element(14, body))
    return b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x0100) + b"IM" + struct.pack("<II", 15, len(packed)) + packed


def inloc(root: Path) -> tuple[SceneMatcher, Camera]:
    """A query between two cutouts, and its camera in the frame of the scan."""
    matcher = SceneMatcher()
    planes, (first, middle, last) = row_of_cameras(1, 3)
    names = [f"{FLOOR}/DUC_cutout_024_{number}_0.jpg" for number in (0, 30)]
    for name, camera in zip(names, (first, last), strict=True):
        picture, depth = photograph(planes, camera, SIZE)
        matcher.learn(write_picture(root / name, picture), planes, camera)
        y, x = np.mgrid[: SIZE[1], : SIZE[0]]
        rays = np.stack((x + 0.5, y + 0.5, np.ones_like(x)), -1) @ np.linalg.inv(camera.K).T
        world = (rays * np.where(depth > 0, depth, np.nan)[..., None] - camera.t) @ camera.R
        (root / f"{name}.mat").write_bytes(mat_file("XYZcut", world))
    K = np.array([[FOCAL, 0, QUERY_SIZE[0] / 2], [0, FOCAL, QUERY_SIZE[1] / 2], [0, 0, 1]])
    camera = replace(middle, K=K, size=QUERY_SIZE)
    matcher.learn(write_picture(root / QUERY, photograph(planes, camera, QUERY_SIZE)[0]), planes, camera)
    motions = root / "database/alignments/DUC1/transformations"
    motions.mkdir(parents=True)
    rows = np.column_stack((np.vstack((TURN, np.zeros(3))), [*SHIFT, 1]))
    text = ["header"] * 7 + [" ".join(map(str, row)) for row in rows]
    (motions / "DUC_trans_024.txt").write_text("\n".join(text))
    (root / "pairs-query-netvlad40.txt").write_text("".join(f"{QUERY} {name}\n" for name in names))
    return matcher, camera


@pytest.fixture
def run(monkeypatch):
    def run_with(matcher: Any, *words: object, benchmark: str = "inloc") -> Result:
        monkeypatch.setitem(MATCHERS, "truth", MatcherSpec("truth", lambda options, name: matcher, "knows", "MIT"))
        return CliRunner().invoke(app, ["eval", benchmark, *map(str, words), "--model", "truth"])

    return run_with


def errors(path: Path, camera: Camera) -> tuple[float, float]:
    """Errors of the only pose in a file: degrees, and distance relative to that of the scene."""
    name, *numbers = path.read_text().split()
    assert name == "IMG_1.JPG"
    w, *vector = map(float, numbers[:4])
    rotation = cv2.Rodrigues(2 * np.arctan2(np.linalg.norm(vector), w) * np.array(vector) / np.linalg.norm(vector))[0]
    centre = -rotation.T @ np.array([float(number) for number in numbers[4:]])
    true = TURN @ (-camera.R.T @ camera.t) + SHIFT
    return rotation_angle_deg(rotation.T @ camera.R @ TURN.T), float(np.linalg.norm(centre - true))


def test_the_truth_lies_in_the_servers_file_and_shuffled_truth_does_not(tmp_path, run):
    matcher, camera = inloc(tmp_path)
    file = tmp_path / "inloc.jsonl"
    values = json.loads(run(matcher, tmp_path, "-o", file, "--json", "-q").stdout)
    assert values["figures"] == {"posed": 100}
    assert not values["comparable"]
    poses = tmp_path / "inloc.jsonl.kept/poses.txt"
    turn, distance = errors(poses, camera)
    assert (turn < 0.3, distance < 0.1) == (True, True), (turn, distance)
    encoded = matcher.images_encoded
    poses.unlink()
    assert run(matcher, tmp_path, "-o", file, "-q").exit_code == 0
    assert (matcher.images_encoded, poses.exists()) == (encoded, True)
    torn = tmp_path / "torn.jsonl"
    run(Shuffled(matcher), tmp_path, "-o", torn, "-q")
    text = (tmp_path / "torn.jsonl.kept/poses.txt").read_text()
    assert not text or errors(tmp_path / "torn.jsonl.kept/poses.txt", camera)[1] > 0.5


def test_without_a_file_there_is_nothing_for_the_server(tmp_path, run):
    matcher, _ = inloc(tmp_path)
    result = run(matcher, tmp_path, "-q")
    assert result.exit_code == 2
    assert "Give -o FILE" in result.stderr


def test_points_lie_where_the_scan_says_and_nowhere_where_it_saw_nothing(tmp_path):
    scan = np.arange(2 * 3 * 3, dtype=float).reshape(2, 3, 3)
    scan[1, 2] = np.nan
    folder = tmp_path / "database/cutouts/DUC1/024"
    folder.mkdir(parents=True)
    (folder / "DUC_a.jpg.mat").write_bytes(mat_file("XYZcut", scan))
    motions = tmp_path / "database/alignments/DUC1/transformations"
    motions.mkdir(parents=True)
    (motions / "DUC_trans_024.txt").write_text("\n" * 7 + "1 0 0 10\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    points = np.array([[0.5, 0.5], [1.0, 0.5], [2.0, 1.0], [2.5, 1.5]])
    found = in_space(tmp_path, "database/cutouts/DUC1/024/DUC_a.jpg", points)
    np.testing.assert_allclose(found[:2], [[10, 1, 2], [11.5, 2.5, 3.5]])
    np.testing.assert_allclose(found[2], scan[0, 2] + [10, 0, 0])  # one of four neighbours is missing: the nearest
    assert np.isnan(found[3]).all()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-30], "cannot be read as a MATLAB file"),
        (lambda data: b"x" * 300, "no little-endian file of level 5"),
        (lambda data: mat_file("RGB", np.ones((2, 2, 3))), "contains no XYZcut"),
    ],
)
def test_damaged_files_are_a_sentence(damage, words, tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(damage(mat_file("XYZcut", np.ones((2, 2, 3)))))
    with pytest.raises(InputError, match=words):
        read_matrix(path, "XYZcut")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("*.mat", "DUC_cutout_024_0_0.jpg.mat"),
        ("DUC_trans_024.txt", "DUC_trans_024.txt"),
        ("IMG_1.JPG", "lacks 1 of 3 pictures"),
        ("pairs-query*", "lacks pairs-query-netvlad40.txt"),
    ],
)
def test_what_is_missing_is_named(name, words, tmp_path, run):
    matcher, _ = inloc(tmp_path)
    sorted(tmp_path.rglob(name))[0].unlink()
    result = run(matcher, tmp_path, "-o", tmp_path / "x.jsonl", "-q")
    assert result.exit_code == 3
    assert words in result.stderr


def city_model(
    root: Path, poses: dict[str, Pose], K: np.ndarray, size: Any, tracks: Any, *, from_corner: bool = True
) -> str:
    """VisualSFM's model of points and the images that see them. Returns a camera in the format of the lists."""
    model = root / "3D-models/aachen_v_1_1"
    model.mkdir(parents=True)
    intrinsics = f"SIMPLE_RADIAL {size[0]} {size[1]} {K[0, 0]} {K[0, 2]} {K[1, 2]} 0"
    (model / "database_intrinsics_v1_1.txt").write_text("".join(f"{name} {intrinsics}\n" for name in poses))
    lines = ["NVM_V3", "", str(len(poses))]
    for name, pose in poses.items():
        turn = cv2.Rodrigues(pose.rotation)[0].ravel()
        angle = float(np.linalg.norm(turn))
        numbers = (np.cos(angle / 2), *np.sinc(angle / 2 / np.pi) / 2 * turn, *pose.centre)
        lines.append(f"{name} {K[0, 0]} {' '.join(f'{value:.15g}' for value in numbers)} 0 0")
    lines += ["", str(len(tracks))]
    for point, numbers in tracks:
        seen = []
        for number in numbers:
            pose = list(poses.values())[number]
            x, y, z = pose.rotation @ point + pose.translation
            place = np.array([x, y]) / z * K[0, 0] + from_corner * K[:2, 2]
            seen.append(f"{number} 0 {place[0]:.6f} {place[1]:.6f}")
        lines.append(f"{' '.join(map(str, point))} 0 0 0 {len(seen)} {' '.join(seen)}")
    (model / "aachen_v_1_1.nvm").write_text("\n".join(lines))
    return intrinsics


def aachen(root: Path, *, from_corner: bool = True) -> tuple[HomographyMatcher, dict[str, Pose]]:
    """Five daytime images of a slanted plane with points, and one query each by day and by night."""
    rng = np.random.default_rng(0)
    poses = {f"db/{index}.png": look_at(np.array([1.2 * index - 2.4, -0.4, -6.0]), np.zeros(3)) for index in range(5)}
    queries = {
        "query/day/nexus/a.png": look_at(np.array([0.5, -0.7, -5.0]), np.zeros(3)),
        "query/night/b.png": look_at(np.array([-1.5, 0.3, -6.5]), np.array([0.4, 0.2, 0.0])),
    }
    by_digest = {}
    for index, (name, pose) in enumerate({**poses, **queries}.items()):
        picture = write_photograph(root / "images/images_upright" / name, index)
        by_digest[image_digest(picture)] = plane_from_image(pose)
    axes = np.linalg.svd(PLANE_NORMAL[None])[2][1:]
    K = np.array([[PLANE_FOCAL, 0, PLANE_SIZE[0] / 2], [0, PLANE_FOCAL, PLANE_SIZE[1] / 2], [0, 0, 1]])
    tracks = [(point, range(len(poses))) for point in rng.uniform(-1.5, 1.5, (200, 2)) @ axes]
    intrinsics = city_model(root, poses, K, PLANE_SIZE, tracks, from_corner=from_corner)
    (root / "queries").mkdir()
    for when, name in zip(("day", "night"), queries, strict=True):
        (root / f"queries/{when}_time_queries_with_intrinsics.txt").write_text(f"{name} {intrinsics}\n")
    pairs = "".join(f"{query} {name}\n" for query in queries for name in poses)
    (root / "pairs-query-netvlad50.txt").write_text(pairs)
    return HomographyMatcher(by_digest), queries


@pytest.mark.parametrize("from_corner", [True, False])
def test_a_citys_queries_are_posed_by_day_and_by_night(from_corner, tmp_path, run):
    matcher, queries = aachen(tmp_path, from_corner=from_corner)
    file = tmp_path / "aachen.jsonl"
    result = run(matcher, tmp_path, "-o", file, "--json", "-q", benchmark="aachen")
    assert json.loads(result.stdout)["figures"] == {"day": 100, "night": 100}
    lines = (tmp_path / "aachen.jsonl.kept/poses.txt").read_text().splitlines()
    for line, (name, true) in zip(lines, queries.items(), strict=True):
        word, *numbers = line.split()
        w, *vector = map(float, numbers[:4])
        turn = 2 * np.arctan2(np.linalg.norm(vector), w) * np.array(vector) / np.linalg.norm(vector)
        rotation = cv2.Rodrigues(turn)[0]
        assert word == Path(name).name
        assert rotation_angle_deg(rotation.T @ true.rotation) < 0.1
        assert np.linalg.norm(-rotation.T @ np.array(numbers[4:], float) - true.centre) < 0.02
    one = run(matcher, tmp_path, "-o", tmp_path / "one.jsonl", "--limit", "1", "--json", "-q", benchmark="aachen")
    assert json.loads(one.stdout)["figures"] in ({"day": 100, "night": None}, {"day": None, "night": 100})


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("aachen_v_1_1.nvm", lambda text: text[: len(text) // 2], "cannot be read as a model of VisualSFM"),
        ("aachen_v_1_1.nvm", lambda text: text.replace("db/3", "db/7"), "names db/7.png, whose camera is not in"),
        ("database_intrinsics_v1_1.txt", lambda text: text.replace("700", "300"), "do not belong together"),
        ("database_intrinsics_v1_1.txt", lambda text: text.replace("SIMPLE", "A"), "is not NAME SIMPLE_RADIAL"),
        ("night_time_queries_with_intrinsics.txt", lambda text: "b.png\n", "NAME MODEL WIDTH HEIGHT"),
    ],
)
def test_a_city_that_is_not_whole_is_a_sentence(name, change, words, tmp_path, run):
    matcher, _ = aachen(tmp_path)
    path = next(tmp_path.rglob(name))
    path.write_text(change(path.read_text()))
    result = run(matcher, tmp_path, "-o", tmp_path / "x.jsonl", "-q", benchmark="aachen")
    assert result.exit_code == 3, result.output
    assert words in result.stderr


def test_a_citys_pictures_are_pairs_of_known_pose(tmp_path, run):
    matcher = SceneMatcher()
    names = [f"db/{number}.jpg" for number in range(3)]
    cameras = scene_written(tmp_path / "images/images_upright", 1, names, matcher)
    depth = photograph(row_of_cameras(1, 3)[0], cameras[1], SIZE)[1]
    y, x = (some[::200] for some in np.nonzero(depth))
    rays = np.column_stack((x + 0.5, y + 0.5, np.ones(len(x)))) @ np.linalg.inv(cameras[1].K).T
    points = (rays * depth[y, x][:, None] - cameras[1].t) @ cameras[1].R
    poses = {name: Pose(camera.R, camera.t) for name, camera in zip(names, cameras, strict=True)}
    # Neighbours share half of the points of each; the first and the last share none.
    seen = [([0, 1], [1, 2], [0], [2])[number % 4] for number in range(len(points))]
    city_model(tmp_path, poses, cameras[0].K, SIZE, list(zip(points, seen, strict=True)))
    values = json.loads(run(matcher, tmp_path, "--json", "-q", benchmark="aachen-pairs").stdout)
    assert values["pairs"] == 2
    assert min(values["figures"].values()) > 90
    torn = json.loads(run(Shuffled(matcher), tmp_path, "--json", "-q", benchmark="aachen-pairs").stdout)
    assert max(torn["figures"].values()) < 20


def test_lenses_are_straightened_before_poses_are_estimated():
    rng = np.random.default_rng(0)
    K, radial = np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1.0]]), 0.1
    rotation, translation = cv2.Rodrigues(np.array([0, 0.1, 0]))[0], np.array([1.0, 0.1, 0])
    space = rng.uniform([-2, -1.5, 4], [2, 1.5, 8], (300, 3))
    sides = []
    for points in (space, space @ rotation.T + translation):
        flat = points[:, :2] / points[:, 2:]
        sides.append((1 + radial * (flat**2).sum(1, keepdims=True)) * flat * 500 + [320, 240])
    sizes, solver = ((640, 480), (640, 480)), EssentialSolver("long", 1200)
    known, unknown = (
        solver.errors(Task(("a", "b"), sizes, PosedTruth((K, K), rotation, translation, terms)), *sides)[0]
        for terms in ((radial, radial), (0.0, 0.0))
    )
    assert known < 0.1 < unknown
