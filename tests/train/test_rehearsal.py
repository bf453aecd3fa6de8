"""A full-scale training in miniature: rehearsed, then run from a folder of MegaDepth to `eval megadepth1500`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from support.benchmark_sets import megadepth
from support.depth_sets import scene, write_megadepth
from support.tiny_mini import TINY
from typer.testing import CliRunner

from romacli.cli.app import app
from romacli.train.options import TrainOptions
from romacli.train.rehearsal import rehearse


def test_a_rehearsal_tells_steps_and_leaves_nothing(tmp_path):
    options = TrainOptions(
        output=tmp_path / "w.safetensors",
        steps=500,
        batch_size=2,
        sizes=(64, 64, 64),
        procedural=2,
        workers=0,
        config=TINY,
    )
    found = rehearse(options)
    assert (found.steps, found.pairs) == (500, 1000)
    assert 1000 < found.parameters < 1e6
    assert found.seconds_per_step > 0
    assert found.memory_gb > 0.05
    # Twice in half precision, and four times four bytes in the checkpoint.
    assert found.disk_gb * 1e9 > 16 * found.parameters
    assert not list(tmp_path.iterdir())


def test_from_photographs_with_depth_to_the_benchmark(tmp_path):
    root = tmp_path / "megadepth"
    planes, cameras = scene(1)
    write_megadepth(root, planes, cameras)
    megadepth(root)
    weights = tmp_path / "weights.safetensors"
    words = ["train", "-o", str(weights), "--data", "megadepth", "--data-dir", str(root), "--steps", "1"]
    words += ["--sizes", "64,64,64", "--batch-size", "1", "--workers", "0"]
    said = CliRunner().invoke(app, [*words, "--dry-run", "--json", "-q"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["steps"] == 1
    assert not weights.exists()
    assert CliRunner().invoke(app, [*words, "-q"]).exit_code == 0
    shutil.rmtree(root / "depths")  # the benchmark needs none
    judged = CliRunner().invoke(
        app,
        ["eval", "megadepth1500", str(root), "--model", "mini", "--weights", str(weights), "--limit", "1"]
        + ["--coarse-resolution", "160", "--no-upsample", "--json", "-q"],
    )
    assert judged.exit_code == 0, judged.output
    assert json.loads(judged.stdout)["pairs"] == 1


def test_rehearsal_is_of_the_data_it_is_given(tmp_path: Path):
    words = [
        "train",
        "-o",
        str(tmp_path / "w.safetensors"),
        "--data",
        "megadepth",
        "--data-dir",
        str(tmp_path),
        "--dry-run",
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 3
    assert "has no scene lists" in result.stderr
