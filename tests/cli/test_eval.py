"""`romacli eval` as users run it, on pairs rendered for the test."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.commands import result_of, romacli

from romacli.cli.measuring.eval import _pose_table, _synthetic_table
from romacli.eval.certainty import Reliability
from romacli.eval.relative_pose import PoseResult
from romacli.eval.statistics import Interval
from romacli.eval.synthetic import ValidationResult
from romacli.synthetic.scenery import deep_scene
from romacli.synthetic.scenes import render_view
from romacli.synthetic.textures import Textures

SIDE = 320


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> tuple[Path, Path]:
    """Two pairs of views of rendered scenes, one of them rotated, and the list of their poses."""
    root = tmp_path_factory.mktemp("eval")
    images = root / "Bilder ü"
    images.mkdir()
    textures = Textures.load(None, procedural=10, seed=4)
    lines = []
    for index, (seed, turns) in enumerate(((6, 0), (6, 1))):
        planes, cameras = deep_scene(textures, np.random.default_rng(seed), SIDE)
        matrix = np.eye(4)
        matrix[:3, :3] = cameras[1].R @ cameras[0].R.T
        matrix[:3, 3] = cameras[1].t - matrix[:3, :3] @ cameras[0].t
        intrinsics = [camera.K - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]] for camera in cameras]
        names = [f"{index}{side}.png" for side in "ab"]
        for name, camera in zip(names, cameras, strict=True):
            cv2.imencode(".png", render_view(planes, camera).rgb[..., ::-1])[1].tofile(images / name)
        numbers = np.concatenate([m.ravel() for m in (*intrinsics, matrix)])
        lines.append(" ".join([*names, str(turns), str(turns), *map(str, numbers)]))
    pose_list = root / "poses.txt"
    pose_list.write_text("\n".join(lines), encoding="utf-8")
    return pose_list, images


def test_poses_of_rendered_pairs_come_out_and_shuffled_matches_give_none(rendered, tmp_path):
    table = tmp_path / "rows.csv"
    words = ("eval", "pairs", *rendered, "--upsample-resolution", 320, "--ransac-seeds", 2, "-o", table, "--json", "-q")
    result = result_of(romacli(*words))
    assert result["pairs"] == 2
    assert result["auc"]["5.0"]["mean"] > 0.8
    assert result["auc"]["5.0"]["low"] <= result["auc"]["5.0"]["mean"] <= result["auc"]["5.0"]["high"]
    assert result["shuffled_auc"]["10.0"]["mean"] < 0.1
    assert result["precision"] > 0.8
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name0"], row["ransac_seed"]) for row in rows] == [
        ("0a.png", "0"), ("0a.png", "1"), ("1a.png", "0"), ("1a.png", "1")
    ]  # fmt: skip


def test_a_bad_line_is_a_sentence_and_exit_code_2(rendered, tmp_path):
    broken = tmp_path / "broken.txt"
    broken.write_text("0a.png 0b.png 0 0 1 2 3\n", encoding="utf-8")
    run = romacli("eval", "pairs", broken, rendered[1])
    assert run.returncode == 2
    assert run.stderr.startswith(f"error: {broken}:1: 7 columns, expected 38")
    assert run.stdout == ""


def test_a_photograph_that_cannot_be_read_is_named(rendered, tmp_path):
    pose_list, images = rendered
    line = pose_list.read_text(encoding="utf-8").splitlines()[0]
    copied = tmp_path / "images"
    copied.mkdir()
    (copied / "0a.png").write_bytes((images / "0a.png").read_bytes()[:200])
    (copied / "0b.png").write_bytes((images / "0b.png").read_bytes())
    (tmp_path / "one.txt").write_text(line, encoding="utf-8")
    run = romacli("eval", "pairs", tmp_path / "one.txt", copied, "-q")
    assert run.returncode == 3
    assert "0a.png is cut off" in run.stderr


def test_synthetic_figures_come_with_their_recipe_and_table(tmp_path):
    table = tmp_path / "reliability.csv"
    small = ("--count", 2, "--matched", 1, "--unrelated", 1, "--upsample-resolution", 320)
    result = result_of(romacli("eval", "synthetic", *small, "--json", "-q", "-o", table))
    assert result["recipe"]["pairs"] == 2
    assert len(result["fingerprint"]) == 12
    for name in ("single_pass", "single_pass_matched", "as_matched"):
        assert 0 <= result[name]["pck1"] <= result[name]["pck3"] <= result[name]["pck5"] <= result[name]["robust"] <= 1
    assert result["unrelated"]["pairs"] == 1
    with table.open(encoding="utf-8") as file:
        counts = [int(row["count"]) for row in csv.DictReader(file) if row["inference"] == "single_pass"]
    assert sum(counts) == 2 * 128 * 128


def test_tables_show_the_numbers():
    results = {"single_pass": ValidationResult(0.5, 0.75, 0.875, 0.9, 0.95, math.nan, Reliability((), 0.125))}
    text = _synthetic_table(results, {"pairs": 8, "verified": 1, "rejected": 5}, "abc")
    assert [line.split()[-1] for line in text.splitlines() if line.startswith(("PCK", "certainty AUC"))] == [
        "0.875", "0.750", "0.500", "-"
    ]  # fmt: skip
    assert "7 of 8; 5 rejected by the matcher itself" in text
    area = {5.0: Interval(0.25, 0.125, 0.375)}
    text = _pose_table(PoseResult(area, {5.0: Interval(0.0, 0, 0)}, 0.5, 99.6, 0.75, 0.1, 2), 4, 5)
    assert re.search(r"at 5 deg +0\.250 +0\.125 to 0\.375 +0\.000\n", text)
    assert re.search(r"matches +100 per pair", text)


def test_weights_of_another_kind_are_refused(tmp_path):
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    run = romacli("eval", "synthetic", "--count", 1, "--weights", tmp_path / "torn.safetensors")
    assert run.returncode == 3
    assert "cannot be read as weights" in run.stderr


def test_two_recipes_at_once_are_refused():
    run = romacli("eval", "synthetic", "--hard", "--changed")
    assert run.returncode == 2
    assert "--hard and --changed are different recipes" in run.stderr
