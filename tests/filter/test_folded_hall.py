"""A hall of two equal sides, mapped from its matches on: the benchmark's scene, once through the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import result_of, romacli

TESTS = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def test_a_hall_is_mapped_without_folding(tmp_path: Path) -> None:
    scene = "--scenes", "hall-2", "--shares", "0.1", "--filter", "yes"
    run = subprocess.run(
        [sys.executable, str(TESTS / "benchmarks" / "lookalikes.py"), *scene, "--keep", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    right, wrong = (int(word) for word in run.stdout.splitlines()[-1].split("|")[4:6])
    assert right >= 20
    assert wrong == 0
    (folder,) = tmp_path.iterdir()
    words = "reconstruct", folder / "photographs", "-o", folder / "job", "--no-refine", "--camera-mode", "single"
    found = result_of(romacli(*words, "--json"))
    assert found["registered"] >= 20
    assert len(found["filtered"]["dropped"]) > 100
    assert found["look"]["left_out"] == []
