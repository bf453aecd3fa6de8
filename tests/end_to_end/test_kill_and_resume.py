"""A job that is killed and resumed gives the same result as an uninterrupted one."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import IO

import h5py
import numpy as np
import pytest
from support.plane import photograph_plane

from romacli.store.journal import Journal
from romacli.types import CompactWarp

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = [f"{i}.png" for i in range(6)]
LENIENT = ["--min-overlap", "0", "--min-certainty", "0", "--coarse-resolution", "64", "--no-upsample", "--no-refine"]


def command(folder: Path, output: Path) -> list[str]:
    return [sys.executable, "-m", "romacli", "match", str(folder), "-o", str(output), "--json", *LENIENT]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def run(folder: Path, output: Path) -> dict[str, float]:
    done = subprocess.run(command(folder, output), env=environment(), capture_output=True, text=True, check=True)
    values: dict[str, float] = json.loads(done.stdout)
    return values


def stop_after_first_pairs(folder: Path, output: Path, signal_number: int) -> subprocess.Popen[str]:
    """Start the job, send the signal once a pair is in the journal, and wait for the end."""
    process = subprocess.Popen(
        command(folder, output), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size > 20_000 for path in output.glob("journal/*.jnl")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no pair was finished in two minutes"
        time.sleep(0.01)
    process.send_signal(signal_number)
    return process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    photograph_plane(root, NAMES)
    return root


@pytest.fixture(scope="module")
def uninterrupted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("jobs") / "uninterrupted"
    run(folder, output)
    return output


def assert_same_job(first: Path, second: Path) -> None:
    """Equal pairs, warps within one quantisation step, and the same keypoints and matches up to that."""
    assert (first / "pairs.txt").read_text() == (second / "pairs.txt").read_text()
    with Journal(first / "journal") as one, Journal(second / "journal") as other:
        assert sorted(map(sorted, one.pairs)) == sorted(map(sorted, other.pairs))
        assert not one.damaged
        for pair in one.pairs:
            a, b = one.read(pair), other.read(pair)
            assert isinstance(a, CompactWarp)
            assert isinstance(b, CompactWarp)
            for side in ("AB", "BA"):
                targets = [getattr(warp, f"target_{side}").astype(int) for warp in (a, b)]
                assert np.abs(targets[0] - targets[1]).max() <= 1
    with h5py.File(first / "features.h5") as one, h5py.File(second / "features.h5") as other:
        for name in NAMES:
            points = [file[name]["keypoints"][()] for file in (one, other)]
            assert points[0].shape == points[1].shape
            np.testing.assert_allclose(points[0], points[1], atol=0.1)


def test_kill_nine_then_the_same_command_equals_an_uninterrupted_run(
    folder: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    process = stop_after_first_pairs(folder, tmp_path / "job", signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    with Journal(tmp_path / "job" / "journal") as journal:
        finished = len(journal)
    assert finished >= 1
    values = run(folder, tmp_path / "job")
    assert values["matched"] == 15
    assert_same_job(uninterrupted, tmp_path / "job")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_ends_with_its_code_and_everything_finished_kept(
    folder: Path, uninterrupted: Path, tmp_path: Path, number: int, code: int
) -> None:
    process = stop_after_first_pairs(folder, tmp_path / "job", number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "stopping; run the same command again" in stderr
    run(folder, tmp_path / "job")
    assert_same_job(uninterrupted, tmp_path / "job")


def bytes_unread(pipe: IO[str]) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_ends_waiting_for_pairs_at_once(folder: Path, tmp_path: Path, number: int, code: int) -> None:
    process = subprocess.Popen(
        [*command(folder, tmp_path / "job"), "--pairs", "-"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write("# a comment\n")
    process.stdin.flush()
    while bytes_unread(process.stdin):
        time.sleep(0.05)
    time.sleep(0.2)  # between the read that returned the comment and the one that waits
    process.send_signal(number)
    try:
        assert process.wait(timeout=20) == code
    finally:
        process.kill()
        process.communicate()


def test_finished_job_is_not_matched_again(folder: Path, uninterrupted: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.glob("*.h5")}
    values = run(folder, uninterrupted)
    assert (values["encodes"], values["matched"]) == (0, 15)
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.glob("*.h5")} == before
