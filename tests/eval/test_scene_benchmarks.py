"""The papers' reconstruction benchmarks on rendered scenes: the truth scores 100, shuffled truth nothing."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.benchmark_sets import write_picture
from support.rendered import Shuffled
from support.scene_sets import WRITERS  # noqa: F401  read by the fixture `written`
from typer.testing import Result

from romacli.eval.benchmarks.benchmark import Task
from romacli.eval.benchmarks.measures import BagAreas, Means
from romacli.eval.benchmarks.scenes.scene import Scene, Subset
from romacli.eval.benchmarks.table import BENCHMARKS
from romacli.images.decode import read_image


@pytest.fixture
def copied(written, tmp_path):
    """A copy of a benchmark's folder that may be damaged, and the matcher."""

    def copy_of(name: str) -> tuple[Path, Any]:
        root, matcher = written[name]
        shutil.copytree(root, tmp_path / "data")
        return tmp_path / "data", matcher

    return copy_of


def told(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", ["texture-poor", "imc2021", "eth3d"])
def test_the_truth_scores_100_and_shuffled_truth_nothing(name, tmp_path, written, run):
    root, matcher = written[name]
    words, file = (name, root, "--json", "-q"), tmp_path / "errors.jsonl"
    figures = told(run(matcher, *words, "-o", file))["figures"]
    if name == "eth3d":
        assert min(figures["acc 1cm"], figures["comp 5cm"]) > 90
    else:
        assert min(figure for figure in figures.values() if figure is not None) > 90
    encoded = matcher.images_encoded
    assert encoded == (5 if name == "imc2021" else 4)
    if name == "texture-poor":
        file.write_text(file.read_text().splitlines(keepends=True)[0])
        assert told(run(matcher, *words, "-o", file))["figures"] == pytest.approx(figures, rel=0.05)
        assert matcher.images_encoded == encoded  # matches are stored next to the errors
    torn = told(run(Shuffled(matcher), *words))["figures"]
    assert all(figure in (0, None) for figure in torn.values())


def test_bags_have_columns_and_those_without_any_are_left_open(tmp_path, run):
    tasks = [
        Task(("gate", str(count)), ((0, 0), (0, 0)), Subset(Scene(tmp_path, {}, {}, {}), ("x",) * count))
        for count in (5, 5, 10)
    ]
    measure = BagAreas("the error", (5, 10), bags=(5, 10, 25))
    assert measure.columns == ("5", "10", "10 of 5", "10 of 10", "10 of 25")
    # No errors at all, one of two without an estimate, none with one.
    figures = measure.figures(tasks, [[0.0], [0.0, math.inf], [math.inf]])
    assert figures[:4] == pytest.approx((50, 50, 75, 0))
    assert math.isnan(figures[4])
    assert Means(("a", "b"), "").figures(tasks, [[0.5, 1], [0, 0], [1, 0.5]]) == (50, 50)


def half_resolution(root: Path) -> None:
    for path in root.rglob("*.JPG"):
        write_picture(path, read_image(path)[::2, ::2])


def unlink(pattern: str) -> Any:
    return lambda root: next(root.rglob(pattern)).unlink()


def put(pattern: str, text: str) -> Any:
    return lambda root: next(root.rglob(pattern)).write_text(text)


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("eth3d", half_resolution, "Unpack the undistorted photographs at their original size"),
        ("eth3d", unlink("3.JPG"), "lacks 1 of 4 pictures"),
        ("eth3d", unlink("scan1.ply"), "names scan1.ply, which is not beside it"),
        ("eth3d", put("scan_alignment.mlp", "<MLMesh"), "cannot be read as a project of scans"),
        ("eth3d", unlink("scan_alignment.mlp"), "contains no scenes SCENE/dslr_calibration_undistorted and"),
        ("imc2021", unlink("5bag_000.txt"), "contains no bags"),
        ("imc2021", unlink("calibration_2.h5"), "calibration_2.h5 cannot be read as a calibration"),
        ("imc2021", unlink("2.jpg"), "lacks 1 of 5 pictures"),
        ("texture-poor", put("poses/1.txt", "1 2 3"), "expected 4 x 4"),
        ("texture-poor", unlink("intrins/1.txt"), "lacks intrins/1.txt"),
    ],
)
def test_data_that_are_not_whole_are_a_sentence(name, damage, words, copied, run):
    root, matcher = copied(name)
    damage(root)
    result = run(matcher, name, root, "-q")
    assert result.exit_code == 3
    assert words in result.stderr


def test_eth3d_for_poses_asks_for_no_scans_and_tells_no_intrinsics(copied):
    root, _ = copied("eth3d")
    next(root.rglob("scan_alignment.mlp")).unlink()
    row = BENCHMARKS["eth3d-sfm"]
    (task,) = row.read(root)
    assert len(task.truth.names) == 4
    assert row.evaluations["dfsfm"].cameras == "shared"
