"""Run romacli as users do, and read its files without it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from typer.testing import CliRunner

from romacli.cli.app import app

REPOSITORY = Path(__file__).resolve().parents[2]


def romacli(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which has already loaded the slow imports."""
    command = [str(word) for word in words]
    result = CliRunner().invoke(app, command)
    return subprocess.CompletedProcess(command, result.exit_code, result.stdout, result.stderr)


def romacli_alone(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    # Threads that wait by spinning make a busy machine several times slower.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": str(REPOSITORY)}
    environment.pop("ROMACLI_MODEL", None)
    command = [sys.executable, "-m", "romacli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)


def result_of(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object a command printed; on failure, its messages are shown."""
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def hloc_names(path: Path) -> list[str]:
    """hloc's rule: the parents of all datasets."""
    names = set()

    def visit(name: str, member: Any) -> None:
        if isinstance(member, h5py.Dataset):
            names.add(member.parent.name.strip("/"))

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return sorted(names)


def hloc_keypoints(path: Path, name: str) -> np.ndarray:
    with h5py.File(path, "r") as file:
        return file[name]["keypoints"][()]


def hloc_matches(path: Path, name0: str, name1: str) -> tuple[np.ndarray, np.ndarray]:
    """hloc's rule: either order, -1 means no match, columns are flipped if stored in reverse order."""
    keys = [f"{a.replace('/', '-')}/{b.replace('/', '-')}" for a, b in ((name0, name1), (name1, name0))]
    with h5py.File(path, "r") as file:
        key = next(key for key in keys if key in file)
        matches0, scores0 = file[key]["matches0"][()], file[key]["matching_scores0"][()]
    rows = np.flatnonzero(matches0 != -1)
    indices = np.stack([rows, matches0[rows]], axis=1)
    return (indices if key == keys[0] else indices[:, ::-1]), scores0[rows]


def hloc_walk(job: Path, images: list[str]) -> dict[tuple[str, str], int]:
    """Read a job as hloc's import does: keypoints of every image, then every line of the list of pairs."""
    sizes = {name: len(hloc_keypoints(job / "features.h5", name)) for name in images}
    counts = {}
    for line in (job / "pairs.txt").read_text(encoding="utf-8").splitlines():
        name0, name1 = line.split()
        indices, scores = hloc_matches(job / "matches.h5", name0, name1)
        assert len(indices) == len(scores)
        assert (indices < (sizes[name0], sizes[name1])).all()
        assert (hloc_matches(job / "matches.h5", name1, name0)[0] == indices[:, ::-1]).all()
        counts[name0, name1] = len(indices)
    return counts


def database_rows(path: Path, query: str) -> Iterator[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        yield from database.execute(query)


def database_keypoints(path: Path) -> dict[str, np.ndarray]:
    query = "SELECT name, rows, cols, data FROM keypoints JOIN images USING (image_id)"
    return {
        name: np.frombuffer(data, np.float32).reshape(rows, columns)[:, :2]
        for name, rows, columns, data in database_rows(path, query)
    }
