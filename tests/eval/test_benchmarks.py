"""The papers' benchmarks on tiny data in their layouts: the truth scores 100, shuffled truth at chance level."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from support.benchmark_sets import LISTS, WRITERS, objects, write_picture
from support.rendered import Points, Shuffled
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.eval.benchmarks.asked import upright
from romacli.eval.benchmarks.benchmark import Task
from romacli.eval.benchmarks.marked import FundamentalSolver
from romacli.eval.benchmarks.measures import DenseFigures, JointAccuracy, Shares
from romacli.eval.benchmarks.run import summarise
from romacli.eval.benchmarks.solvers import EssentialSolver, HomographySolver, PosedTruth, corner_error
from romacli.eval.benchmarks.table import BENCHMARKS
from romacli.images.decode import read_image
from romacli.matchers.registry import MATCHERS
from romacli.types import DenseMatch


def figures(result: Result) -> list[float]:
    assert result.exit_code == 0, result.output
    return list(json.loads(result.stdout)["figures"].values())


# Protocols that differ from a benchmark's first only in their repeats are left out.
OWN = [(name, next(iter(BENCHMARKS[name].evaluations))) for name in WRITERS]
OWN += [("wxbs", "warp"), ("wxbs", "loma"), ("satast", "warp"), ("megadepth-dense", "romatch")]


@pytest.mark.parametrize(("name", "protocol"), OWN)
def test_the_truth_scores_100_and_shuffled_truth_scores_chance(name, protocol, written, run):
    root, matcher = written[name]
    words = (name, root, "--protocol", protocol, "--json", "-q")
    several = BENCHMARKS[name].evaluations[protocol].samples > 1  # the most expensive ones
    true = figures(run(matcher, *words, "--limit", 4 if name == "satast" else 1 if several else 2))
    torn = figures(run(Shuffled(matcher), *words, "--limit", 1))
    if "dense" in name:
        assert true[0] < (0.2 if name == "megadepth-dense" else 0.6)  # ScanNet's K refers to pixel centres
        assert torn[0] > 50
        true, torn = true[1:], torn[1:4]
    if protocol == "loma":
        assert 85 < true[0] < 91  # one of its eleven thresholds is zero
        true = true[2:]
    assert min(true) > (90 if name != "strecha" else 80)
    assert min(torn) < 20


def test_pictures_are_encoded_once_and_pairs_named_twice_count_twice(written, run):
    root, matcher = written["megadepth1500"]
    matcher.images_encoded = 0
    values = json.loads(run(matcher, "megadepth1500", root, "--protocol", "one-sample", "--json", "-q").stdout)
    assert min(values["figures"].values()) > 90  # including the pair named in reverse order
    assert matcher.images_encoded == 8  # two pairs in each of two scenes' folders
    assert (values["pairs"], values["errors"], values["comparable"]) == (5, 25, False)


def test_the_table_names_the_protocol_and_published_figures_with_their_sources(written, run):
    root, matcher = written["scannet1500"]
    text = run(matcher, "scannet1500", root, "--protocol", "romatch", "-q").stdout
    for words in ("protocol romatch", "1 balanced sample of 5000", "RANSAC 0.5 px at a short side of 480 px",
                  "confidence 0.99999", "5 estimates", "counting twice", "31.80", "RoMa paper",
                  "2 pairs, but the benchmark has 1500"):  # fmt: skip
        assert words in text
    assert "without estimate: 0 of 10" in text


def test_an_interrupted_run_goes_on_where_it_was(written, run, tmp_path):
    root, matcher = written["hpatches"]
    file = tmp_path / "errors.jsonl"
    whole = figures(run(matcher, "hpatches", root, "-o", file, "--json", "-q"))
    lines = file.read_text().splitlines(keepends=True)
    assert len(lines) == 11
    file.write_text("".join(lines[:6]) + lines[6][:20])
    matcher.images_encoded = 0
    assert figures(run(matcher, "hpatches", root, "-o", file, "--json", "-q")) == whole
    assert matcher.images_encoded == 6  # only the other sequence
    assert sorted(file.read_text().splitlines()) == sorted("".join(lines).splitlines())
    refused = run(matcher, "hpatches", root, "-o", file, "--seed", "1")
    assert refused.exit_code == 2
    assert "made with another seed" in refused.stderr
    file.write_text("something else\n")
    assert "contains no errors of a benchmark" in run(matcher, "hpatches", root, "-o", file).stderr


def test_a_limit_is_spread_and_said(written, run):
    root, matcher = written["hpatches"]
    text = run(matcher, "hpatches", root, "--limit", "2", "-q").stdout
    assert "2 of 10 pairs: not comparable" in text


def test_a_matcher_of_keypoints_gives_its_own_points(written, run):
    root, matcher = written["hpatches"]
    result = run(Points(matcher, 1003), "hpatches", root, "-q")
    assert "all its matches are used" in result.stdout
    assert min(figures(run(Points(matcher, 1003), "hpatches", root, "-q", "--json"))) > 90


def test_a_matcher_without_one_direction_is_refused_at_once(written, run):
    root, matcher = written["hpatches"]

    class OneWay(Shuffled):
        def warp(self, pairs):
            return [replace(match, warp_BA=None, certainty_BA=None) for match in matcher.warp(pairs)]

    result = run(OneWay(matcher), "hpatches", root, "-q")
    assert result.exit_code == 2
    assert "one direction only" in result.stderr


def test_satast_reads_warps_at_four_quarter_turns_of_the_second_picture(written, run):
    root, matcher = written["satast"]
    matcher.images_encoded = 0
    result = json.loads(run(matcher, "satast", root, "--protocol", "warp", "--json", "-q").stdout)
    assert (result["pairs"], result["errors"]) == (2, 2 * 4 * 6)
    assert matcher.images_encoded == 2 * 2 * 4

    class Upright(Shuffled):
        """Warps that are right for unrotated images, recognised by their sizes, and off by half an image otherwise."""

        def warp(self, pairs):
            found = matcher.warp(pairs)
            return [
                match if match.size_B[0] > match.size_B[1] else replace(match, warp_AB=match.warp_AB + 1)
                for match in found
            ]

    half = figures(run(Upright(matcher), "satast", root, "--protocol", "warp", "--json", "-q"))
    assert half[-1] == pytest.approx(50, abs=2)  # all but 90 and 270 degrees


@pytest.mark.parametrize(("turns", "expected"), [(0, (10, 20)), (1, (20, 30)), (2, (30, 20)), (3, (20, 10))])
def test_a_place_in_a_turned_picture_is_told_in_the_picture_itself(turns, expected):
    """(10, 20) px of the rotated image, 40 x 40; worked out by hand."""
    place = torch.tensor([[[10 / 20 - 1, 20 / 20 - 1]]])
    grid = torch.arange(4.0).reshape(2, 2)
    match = DenseMatch(place, torch.ones(1, 1), torch.rot90(grid, -turns)[..., None], grid, (1, 1), (40, 40))
    found = upright(match, turns)
    assert ((found.warp_AB[0, 0] + 1) * 20).tolist() == pytest.approx(expected)
    assert torch.equal(found.warp_BA[..., 0], grid)  # the image's own pixels again


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
        ("strecha", cut("images/a.jpg"), "contains 1 picture cut off before the end, first images/a.jpg"),
        ("satast", cut("data/0/pred.png"), "contains 1 picture cut off"),
        ("megadepth1500", cut(f"{LISTS[0]}.npz"), "0015_0.1_0.3.npz cannot be read as arrays"),
        ("megadepth1500", with_code, "wants to call builtins.print"),
        ("megadepth1500", leading_out, "pair 0 has no two photographs"),
        ("megadepth1500", half_resolution, "of another resolution than its pictures"),
        ("scannet1500", half_resolution, "of another resolution than its pictures"),
        ("scannet1500", lambda root: (root / "test.npz").unlink(), "lacks test.npz. Unpack"),
        ("scannet1500", lambda root: next(root.rglob("intrinsic_color.txt")).unlink(), "txt cannot be read as numbers"),
        ("hpatches", lambda root: (root / SEQUENCE / "3.ppm").unlink(), "i_wall/3.ppm"),
        ("hpatches", lambda root: (root / SEQUENCE / "H_1_4").unlink(), "i_wall/H_1_4"),
        ("hpatches", lambda root: (root / SEQUENCE / "H_1_4").write_text("1 2"), "contains 1 x 2 numbers"),
        ("strecha", lambda root: (root / "images/a.jpg").unlink(), "lacks 1 of 2 photographs"),
        ("strecha", lambda root: (root / "cameras/a.jpg.camera").unlink(), "contains 1 files"),
        ("strecha", half_resolution, "of another resolution than its pictures"),
        ("hpatches", cut(f"{SEQUENCE}/3.ppm"), "1 pair could not be judged"),
        ("wxbs", lambda root: (root / "WGABS/kyiv/corrs.txt").unlink(), "kyiv lacks corrs.txt"),
        ("wxbs", lambda root: (root / "WGABS/kyiv/corrs.txt").write_text("1 2 3"), "expected any x 4"),
        ("wxbs", lambda root: (root / "WGABS/kyiv/02.png").unlink(), "lacks 1 of 4 pictures"),
        ("satast", cut("annotations-v1/annotation_1.json"), "annotation_1.json cannot be read"),
        ("satast", lambda root: (root / "data/0/pred.png").unlink(), "lacks 1 of 4 pictures"),
        ("imc2022", lambda root: (root / "train/gate/calibration.csv").unlink(), "lacks train/gate/calibration.csv"),
        ("imc2022", cut("train/gate/calibration.csv"), "calibration.csv is empty or cut off"),
        ("imc2022", half_resolution, "of another resolution than its pictures"),
        ("megadepth-dense", lambda root: next(root.rglob("0.h5")).unlink(), "0.h5"),
        ("scannet-dense", lambda root: next(root.rglob("depth/0.png")).unlink(), "depth/0.png"),
    ],
)  # fmt: skip
def test_data_that_are_not_whole_are_a_sentence(name, damage, words, tmp_path, run):
    matcher = WRITERS[name](tmp_path)
    damage(tmp_path)
    result = run(matcher, name, tmp_path, "-q")
    assert result.exit_code in (3, 4)
    assert words in result.stderr
    assert result.exit_code == 4 or not matcher.images_encoded  # it is said before anything runs
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
    # 5 px in an image twice as large as the protocol's are 2.5.
    assert HomographySolver().errors(task, points, points + np.float32([3, 4])) == pytest.approx([2.5], abs=1e-3)
    assert HomographySolver().errors(task, points[:3], points[:3]) == (math.inf,)


def test_a_matcher_of_keypoints_cannot_be_asked_for_warps(written, run):
    root, matcher = written["wxbs"]
    result = run(Points(matcher, 1003), "wxbs", root, "--protocol", "warp", "-q")
    assert result.exit_code == 2
    assert "gives points, and the protocol reads warps" in result.stderr


def test_shares_are_averaged_over_pairs_and_thresholds():
    tasks = [Task((name, "x"), ((1, 1), (1, 1)), None) for name in "ab"]
    # Of the first pair half are within 1 px and all within 2; of the second, one in four from 2 px on.
    rows = [[0.5, 1.5], [2.0, 9.0, math.inf, math.inf]]
    measure = Shares("points", (1, 2), shown=(1, 2))
    assert measure.figures(tasks, rows) == pytest.approx((43.75, 25, 62.5))
    assert Shares("points", (0, 1, 2), shown=()).figures(tasks, rows) == pytest.approx((100 * (0 + 0.25 + 0.625) / 3,))


def test_accuracy_wants_both_errors_small_and_scenes_count_alike():
    tasks = [Task((f"train/{scene}/images/x", "y"), ((1, 1), (1, 1)), None) for scene in ("a", "a", "b")]
    # 1.5 deg is below nine of ten thresholds, 1.3 m below the last four (1.198 of the sixth is too small).
    assert JointAccuracy().figures(tasks, [[1.5, 0.0], [0.5, 1.3], [math.inf, math.inf]]) == pytest.approx(
        (100 * ((0.9 + 0.4) / 2 + 0) / 2,)
    )


def test_a_pair_that_sees_too_little_has_no_error_of_its_warp():
    assert DenseFigures().figures([], [[2.0, 0.5, 0.75, 1, 1], [], [4.0, 0.5, 0.25, 0, 1]]) == (3, 50, 50, 50, 100)


def test_epipolar_errors_count_both_pictures():
    # Between views that moved sideways epipolar lines are rows: 3 px apart in each image, the root of 9 + 9.
    task = Task(("a", "b"), ((100, 100), (100, 100)), np.array([[10.0, 20, 40, 23], [10, 20, 30, 20]]))
    nothing = np.zeros((3, 2))
    assert FundamentalSolver(sideways=True).errors(task, nothing, nothing) == pytest.approx([18**0.5, 0])
    assert FundamentalSolver().errors(task, nothing, nothing) == [math.inf, math.inf]


def test_areas_pool_all_errors_and_may_count_the_last_twice():
    row = BENCHMARKS["scannet1500"]
    tasks = [Task((name, "x"), ((1, 1), (1, 1)), None) for name in "ab"]
    errors = {("a", "x"): [0.0, 4.0], ("b", "x"): [math.inf, math.inf]}
    # Recall rises to 1/4 immediately, by errors of 0; from there to 1/2 at 4 deg; then it is constant up to 5 deg.
    usual = summarise(row, row.evaluations["roma"], tasks, errors)
    assert usual.figures["5"] == pytest.approx(100 * (4 * (0.25 + 0.5) / 2 + 1 * 0.5) / 5)
    twice = summarise(row, row.evaluations["romatch"], tasks, errors)
    assert (twice.errors, twice.without_estimate) == (4, 2)
    assert twice.figures["5"] == pytest.approx(100 * (4 * (1 / 6 + 2 / 6) / 2 + 1 * 0.5) / 5)


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
        assert solver.errors(task, points0, points1)[0] < 0.1
        assert solver.errors(task, points0[:4], points1[:4]) == (math.inf,)
        assert solver.errors(task, points0, rng.permutation(points1))[0] > 5
