"""The short form of `tests/benchmarks/kills.py`: a few kills of the real commands, at random moments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def test_kills_while_matching_exporting_and_importing_lose_nothing(tmp_path: Path) -> None:
    words = [sys.executable, str(TESTS / "benchmarks" / "kills.py"), "--kills", "3", "--images", "4"]
    paths = os.pathsep.join((str(TESTS.parent), str(TESTS)))
    run = subprocess.run(
        [*words, "--folder", str(tmp_path / "kills")],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(run.stdout)
    assert report["kills"] == 3
    assert (report["lost_pairs"], report["unreadable"], report["differences"]) == (0, 0, 0)
