"""The papers' benchmarks on tiny data in their layouts: the truth scores 100, shuffled truth by chance."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.depth_sets import PHOTOGRAPH, at_size, photograph, pose, scene
from support.homography import HomographyMatcher, image_digest
from support.rendered import Points, SceneMatcher, Shuffled
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.eval.benchmarks.benchmark import Task
from romacli.eval.benchmarks.run import summarise
from romacli.eval.benchmarks.solvers import EssentialSolver, HomographySolver, PosedTruth, corner_error
from romacli.eval.benchmarks.table import BENCHMARKS
from romacli.images.decode import read_image
from romacli.matchers.registry import MATCHERS
from romacli.types import MatcherSpec

LISTS = ("0015_0.1_0.3", "0015_0.3_0.5", "0022_0.1_0.3", "0022_0.3_0.5", "0022_0.5_0.7")
SEEDS = (1, 3)


def write_picture(path: Path, rgb: np.ndarray) -> np.ndarray:
    """The picture as it is read again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, rgb[..., ::-1])[1].tobytes())
    return read_image(path)


def megadepth(root: Path) -> SceneMatcher:
    """Two scenes of a pair; the lists share them, and one names a pair the other way round."""
    matcher = SceneMatcher()
    for number, name in enumerate(LISTS):
        planes, cameras = scene(SEEDS[number % 2])
        cameras = [at_size(camera, PHOTOGRAPH) for camera in cameras]
        paths = [f"Undistorted_SfM/{name[:4]}/images/{SEEDS[number % 2]}{side}.jpg" for side in "ab"]
        for path, camera in zip(paths, cameras, strict=True):
            matcher.learn(write_picture(root / path, photograph(planes, camera)[0]), planes, camera)
        infos = np.empty(1, object)
        infos[0] = ((1, 0) if number == 2 else (0, 1), 0.2, None)
        columns = {"pair_infos": infos}
        rows = {"image_paths": paths, "intrinsics": [c.K for c in cameras], "poses": [pose(c) for c in cameras]}
        for key, values in rows.items():
            columns[key] = np.array([*values, None], object) if key == "image_paths" else objects([*values, None])
        np.savez(root / f"{name}.npz", **columns)
    return matcher


def objects(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def scannet(root: Path) -> SceneMatcher:
    matcher, names, poses = SceneMatcher(), [], []
    for seed in SEEDS:
        planes, cameras = scene(seed)
        cameras = [at_size(replace(camera, K=cameras[0].K), PHOTOGRAPH) for camera in cameras]
        folder = root / f"scans_test/scene07{seed:02d}_00"
        for frame, camera in zip((0, 15), cameras, strict=True):
            matcher.learn(write_picture(folder / f"color/{frame}.jpg", photograph(planes, camera)[0]), planes, camera)
        K = np.eye(4)
        K[:3, :3] = cameras[0].K - [[0, 0, 0.25], [0, 0, 0.25], [0, 0, 0]]  # half a pixel at twice the size
        (folder / "intrinsic").mkdir()
        np.savetxt(folder / "intrinsic/intrinsic_color.txt", K)
        names.append([700 + seed, 0, 0, 15])
        poses.append((pose(cameras[1]) @ np.linalg.inv(pose(cameras[0])))[:3].ravel())
    np.savez(root / "test.npz", name=np.array(names), rel_pose=np.array(poses))
    return matcher


def hpatches(root: Path) -> HomographyMatcher:
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (400, 500, 3), np.uint8), (0, 0), 1.5)
    by_digest = {}
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    for name in ("i_wall", "v_wall", "v_talent"):  # the last is left out of the benchmark
        homographies = [np.eye(3)]
        for _ in range(5):
            matrix = np.eye(3) + rng.normal(size=(3, 3)) * [[0.02, 0.02, 8], [0.02, 0.02, 8], [1e-5, 1e-5, 0]]
            homographies.append(matrix if name[0] == "v" else np.eye(3))
        for k, first_to_k in enumerate(homographies, 1):
            picture = cv2.warpPerspective(texture, first_to_k, (320 + k, 240))
            picture = write_picture(root / f"hpatches-sequences-release/{name}/{k}.ppm", picture + np.uint8(k))
            by_digest[image_digest(picture)] = shift @ np.linalg.inv(first_to_k) @ np.linalg.inv(shift)
            if k > 1:
                np.savetxt(root / f"hpatches-sequences-release/{name}/H_1_{k}", first_to_k)
    return HomographyMatcher(by_digest)


def strecha(root: Path) -> SceneMatcher:
    matcher = SceneMatcher()
    planes, cameras = scene(3)
    for side, camera in zip("ab", (at_size(camera, PHOTOGRAPH) for camera in cameras), strict=True):
        picture = write_picture(root / f"images/{side}.jpg", photograph(planes, camera)[0])
        matcher.learn(picture, planes, camera)
        numbers = [camera.K.ravel(), np.zeros(3), camera.R.T.ravel(), -camera.R.T @ camera.t, PHOTOGRAPH]
        (root / "cameras").mkdir(exist_ok=True)
        (root / f"cameras/{side}.jpg.camera").write_text(" ".join(map(str, np.concatenate(numbers))))
    return matcher


WRITERS = {"megadepth1500": megadepth, "scannet1500": scannet, "hpatches": hpatches, "strecha": strecha}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, tuple[Path, Any]]:
    """The folder of each benchmark and the matcher that knows it, made when they are asked for."""

    class Written(dict[str, tuple[Path, Any]]):
        def __missing__(self, name: str) -> tuple[Path, Any]:
            root = tmp_path_factory.mktemp(name)
            self[name] = root, WRITERS[name](root)
            return self[name]

    return Written()


@pytest.fixture
def run(monkeypatch):
    def run_with(matcher: Any, *words: object) -> Result:
        monkeypatch.setitem(MATCHERS, "truth", MatcherSpec("truth", lambda options, name: matcher, "knows", "MIT"))
        return CliRunner().invoke(app, ["eval", *map(str, words), "--model", "truth"])

    return run_with


def figures(result: Result) -> list[float]:
    assert result.exit_code == 0, result.output
    return list(json.loads(result.stdout)["figures"].values())


@pytest.mark.parametrize("name", WRITERS)
def test_the_truth_scores_100_and_shuffled_truth_scores_chance(name, written, run):
    root, matcher = written[name]
    assert min(figures(run(matcher, name, root, "--json", "-q"))) > (0.9 if name != "strecha" else 0.8)
    assert max(figures(run(Shuffled(matcher), name, root, "--limit", 1, "--json", "-q"))) < 0.2


def test_pictures_are_encoded_once_and_pairs_named_twice_count_twice(written, run):
    root, matcher = written["megadepth1500"]
    matcher.images_encoded = 0
    values = json.loads(run(matcher, "megadepth1500", root, "--json", "-q").stdout)
    assert matcher.images_encoded == 8  # two pairs in each of two scenes' folders
    assert (values["pairs"], values["errors"], values["comparable"]) == (5, 25, False)


def test_the_table_names_the_protocol_and_published_figures_with_their_sources(written, run):
    root, matcher = written["scannet1500"]
    text = run(matcher, "scannet1500", root, "--protocol", "romatch", "-q").stdout
    for words in ("protocol romatch", "1 balanced sample of 5000", "RANSAC 0.5 px at a short side of 480 px",
                  "confidence 0.99999", "5 estimates", "counts twice", "31.80", "RoMa paper",
                  "2 pairs, where the benchmark has 1500"):  # fmt: skip
        assert words in text
    assert "without estimate: 0 of 12" in text


def test_an_interrupted_run_goes_on_where_it_was(written, run, tmp_path):
    root, matcher = written["hpatches"]
    file = tmp_path / "errors.jsonl"
    whole = figures(run(matcher, "hpatches", root, "-o", file, "--json", "-q"))
    lines = file.read_text().splitlines(keepends=True)
    assert len(lines) == 11
    file.write_text("".join(lines[:6]) + lines[6][:20])
    matcher.images_encoded = 0
    assert figures(run(matcher, "hpatches", root, "-o", file, "--json", "-q")) == whole
    assert matcher.images_encoded == 6  # the other sequence alone
    assert sorted(file.read_text().splitlines()) == sorted("".join(lines).splitlines())
    refused = run(matcher, "hpatches", root, "-o", file, "--seed", "1")
    assert refused.exit_code == 2
    assert "made with another seed" in refused.stderr
    file.write_text("something else\n")
    assert "holds no errors of a benchmark" in run(matcher, "hpatches", root, "-o", file).stderr


def test_a_limit_is_spread_and_said(written, run):
    root, matcher = written["hpatches"]
    text = run(matcher, "hpatches", root, "--limit", "2", "-q").stdout
    assert "2 of 10 pairs: not to be compared" in text


def test_a_matcher_of_keypoints_gives_its_own_points(written, run):
    root, matcher = written["hpatches"]
    result = run(Points(matcher, 1003), "hpatches", root, "-q")
    assert "all points it gives are used" in result.stdout
    assert min(figures(run(Points(matcher, 1003), "hpatches", root, "-q", "--json"))) > 0.9


def test_a_matcher_without_one_direction_is_refused_at_once(written, run):
    root, matcher = written["hpatches"]

    class OneWay(Shuffled):
        def warp(self, pairs):
            return [replace(match, warp_BA=None, certainty_BA=None) for match in matcher.warp(pairs)]

    result = run(OneWay(matcher), "hpatches", root, "-q")
    assert result.exit_code == 2
    assert "one direction only" in result.stderr


def test_matchers_run_at_the_sizes_of_the_papers_unless_some_are_given(written, monkeypatch):
    asked = []
    root, matcher = written["scannet1500"]

    def build(options: Any, name: str) -> Any:
        asked.append((options.coarse_resolution, options.upsample_resolution, options.upsample))
        return matcher

    for words in (["roma-v2"], ["roma-indoor"], ["roma-v2", "--coarse-resolution", "640"], ["mini"]):
        monkeypatch.setitem(MATCHERS, words[0], replace(MATCHERS[words[0]], factory=build))
        line = ["eval", "scannet1500", str(root), "--limit", "1", "-q", "--model", *words]
        assert CliRunner().invoke(app, line).exit_code == 0
    assert asked == [
        ((800, 800), (1024, 1024), True), ((560, 560), None, False), ((640, 640), None, True), (None, None, True)
    ]  # fmt: skip


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code ran",)


def with_code(root: Path) -> None:
    np.savez(root / f"{LISTS[0]}.npz", pair_infos=objects([Code()]), image_paths=[], intrinsics=[], poses=[])


def half_resolution(root: Path) -> None:
    for path in root.rglob("*.jpg"):
        write_picture(path, read_image(path)[::2, ::2])


def leading_out(root: Path) -> None:
    with np.load(root / f"{LISTS[0]}.npz", allow_pickle=True) as file:
        columns = dict(file)
    columns["image_paths"] = objects(["../secret.jpg", "../secret.jpg", None])
    np.savez(root / f"{LISTS[0]}.npz", **columns)


def cut(path: str) -> Any:
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:-100])


SEQUENCE = "hpatches-sequences-release/i_wall"


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("megadepth1500", lambda root: (root / f"{LISTS[1]}.npz").unlink(), "lacks 0015_0.3_0.5.npz. Unpack"),
        ("megadepth1500", lambda root: next(root.rglob("*1a.jpg")).unlink(), "lacks 1 of 8 pictures"),
        ("megadepth1500", cut(f"{LISTS[0]}.npz"), "0015_0.1_0.3.npz cannot be read as arrays"),
        ("megadepth1500", with_code, "wants to call builtins.print"),
        ("megadepth1500", leading_out, "pair 0 has no two photographs"),
        ("megadepth1500", half_resolution, "of another resolution than its pictures"),
        ("scannet1500", half_resolution, "of another resolution than its pictures"),
        ("scannet1500", lambda root: (root / "test.npz").unlink(), "lacks test.npz. Unpack"),
        ("scannet1500", lambda root: next(root.rglob("intrinsic_color.txt")).unlink(), "cannot be read as a matrix"),
        ("hpatches", lambda root: (root / SEQUENCE / "3.ppm").unlink(), "i_wall/3.ppm"),
        ("hpatches", lambda root: (root / SEQUENCE / "H_1_4").unlink(), "i_wall/H_1_4"),
        ("hpatches", lambda root: (root / SEQUENCE / "H_1_4").write_text("1 2"), "holds no homography"),
        ("strecha", lambda root: (root / "images/a.jpg").unlink(), "lacks 1 of 2 photographs"),
        ("strecha", lambda root: (root / "cameras/a.jpg.camera").unlink(), "holds 1 files"),
        ("strecha", half_resolution, "of another resolution than its pictures"),
        ("hpatches", cut(f"{SEQUENCE}/3.ppm"), "1 pair could not be judged"),
    ],
)  # fmt: skip
def test_data_that_are_not_whole_are_a_sentence(name, damage, words, tmp_path, run):
    matcher = WRITERS[name](tmp_path)
    damage(tmp_path)
    result = run(matcher, name, tmp_path, "-q")
    assert result.exit_code in (3, 4)
    assert words in result.stderr
    assert "code ran" not in result.output


def test_a_folder_or_protocol_that_is_not_there_is_named(run, tmp_path):
    assert "lacks 0015_0.1_0.3.npz" in run(None, "megadepth1500", tmp_path / "none").stderr
    assert "Choose from: roma, romatch" in run(None, "scannet1500", tmp_path, "--protocol", "x").stderr


def test_the_list_says_what_each_benchmark_needs():
    result = CliRunner().invoke(app, ["eval", "list"])
    rows = json.loads(CliRunner().invoke(app, ["eval", "list", "--json"]).stdout)["benchmarks"]
    assert [row["name"] for row in rows] == list(BENCHMARKS)
    for row in rows:
        assert all(text in result.stdout for text in (row["name"], row["origin"], *row["layout"], *row["protocols"]))


def test_the_page_names_every_benchmark_and_protocol():
    page = Path(__file__).resolve().parents[2] / "man/romacli-eval-benchmarks.7"
    text = page.read_text(encoding="utf-8").replace("\\-", "-")
    for row in BENCHMARKS.values():
        assert f"romacli eval {row.name}" in text
        assert all(f"--protocol {name}" in text for name in list(row.evaluations)[1:])


def test_corner_errors_are_those_worked_out_by_hand():
    # A shift by (3, 4) moves all corners by 5; a stretch by 2 along x moves two of four by w - 1.
    assert corner_error(np.array([[1, 0, 3], [0, 1, 4], [0, 0, 1.0]]), np.eye(3), (11, 6)) == pytest.approx(5)
    assert corner_error(np.diag([2, 1, 1.0]), np.eye(3), (11, 6)) == pytest.approx(5)
    task = Task(("a", "b"), ((640, 480), (1280, 960)), np.eye(3))
    points = np.array([[1, 1], [600, 5], [9, 400], [500, 450]], np.float32)
    # 5 px in a picture twice as large as the protocol's are 2.5.
    assert HomographySolver().error(task, points, points + np.float32([3, 4])) == pytest.approx(2.5, abs=1e-3)
    assert HomographySolver().error(task, points[:3], points[:3]) == math.inf


def test_areas_pool_all_errors_and_may_count_the_last_twice():
    row = BENCHMARKS["scannet1500"]
    tasks = [Task((name, "x"), ((1, 1), (1, 1)), None) for name in "ab"]
    errors = {("a", "x"): [0.0, 4.0], ("b", "x"): [math.inf, math.inf]}
    # Recall rises to 1/4 at once, by errors of 0; from there to 1/2 at 4 deg; then it stays to 5 deg.
    usual = summarise(row, row.evaluations["roma"], tasks, errors)
    assert usual.figures[5] == pytest.approx((4 * (0.25 + 0.5) / 2 + 1 * 0.5) / 5)
    twice = summarise(row, row.evaluations["romatch"], tasks, errors)
    assert (twice.errors, twice.without_estimate) == (6, 3)
    assert twice.figures[5] == pytest.approx((4 * (1 / 6 + 2 / 6) / 2 + 1 * 0.5) / 5)


def test_the_sign_of_a_translation_does_not_count_and_few_points_are_no_pose():
    rng = np.random.default_rng(0)
    K = np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1.0]])
    rotation, translation = cv2.Rodrigues(np.array([0, 0.1, 0]))[0], np.array([1.0, 0.1, 0])
    space = rng.uniform([-2, -1.5, 4], [2, 1.5, 8], (200, 3))
    pixels = [points @ K.T for points in (space, space @ rotation.T + translation)]
    points0, points1 = ((side[:, :2] / side[:, 2:]) for side in pixels)
    solver = EssentialSolver("long", 1200)
    for sign in (1, -1):
        task = Task(("a", "b"), ((640, 480), (640, 480)), PosedTruth((K, K), rotation, sign * translation))
        assert solver.error(task, points0, points1) < 0.1
        assert solver.error(task, points0[:4], points1[:4]) == math.inf
        assert solver.error(task, points0, rng.permutation(points1)) > 5
