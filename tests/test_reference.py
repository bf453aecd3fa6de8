"""The programs that time RoMa against the authors' package and against its own bfloat16."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from romacli.types import DenseMatch

TESTS = Path(__file__).resolve().parent
BENCHMARKS = TESTS / "benchmarks"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(map(str, (TESTS.parent, TESTS, BENCHMARKS)))
    return subprocess.run(
        [sys.executable, *words], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name: runpy.run_path(str(BENCHMARKS / name))


@pytest.mark.parametrize("name", ["reference.py", "bfloat16.py"])
def test_help_says_what_is_compared_and_how(name: str):
    done = run(str(BENCHMARKS / name), "--help")
    assert done.returncode == 0, done.stderr
    assert "--upsample" in done.stdout
    assert f"tests/benchmarks/{name}" in done.stdout


def test_without_the_reference_a_sentence_says_what_to_install():
    path = str(BENCHMARKS / "reference.py")
    hide = "import runpy, sys; sys.modules['romatch'] = None; sys.argv = ['']; "
    done = run("-c", f"{hide}runpy.run_path({path!r}, run_name='__main__')")
    assert done.returncode == 3
    assert "without romatch" in done.stderr
    assert "Install romatch 0.1.2 and torchvision without their dependencies" in done.stderr


def test_encodes_are_charged_to_every_pair(program):
    reference = program("reference.py")
    seconds, sampling = reference["Seconds"], reference["Sampling"]
    done = [seconds(10.0, 1.0, sampling(0.5, 20.0, 0.5)), seconds(12.0, 2.0, None), seconds(30.0, 4.0, None)]
    ratios = reference["summary"](done, encode_share=1.0)
    assert ratios["match"] == 5
    assert ratios["match, of sums"] == 5.2
    assert ratios["warp alone"] == pytest.approx(10 / 1.5)
    assert ratios["match and sample"] == 15
    assert ratios["sample alone"] == 40


def test_errors_are_in_pixels_of_the_image_led_to(program):
    warp, zeros, ones = torch.zeros(2, 3, 2), torch.zeros(2, 3), torch.ones(2, 3)
    size_A, size_B = (100, 50), (200, 400)
    exact = DenseMatch(warp, ones, warp, zeros, size_A, size_B)
    rough = DenseMatch(warp + torch.tensor([0.03, 0.02]), ones, warp + 1, ones, size_A, size_B)
    distances = program("bfloat16.py")["distances_px"](exact, rough, certain=0.5)
    np.testing.assert_allclose(distances, np.full(6, 5.0), rtol=1e-5)
