"""SIGKILL at random moments of matching, exporting and importing, each followed by the same command.

The photographs show a plane and the matcher knows them; everything else is the real program. After every kill all
existing files are read completely, and every pair finished before must still be there. At the end the job is compared
with an undisturbed one: pairs, warps bit by bit, keypoints, matches and the tables of the database. Commands are forked
from a process that has already loaded the libraries, which would otherwise take most of the time.

    PYTHONPATH=.:tests python tests/benchmarks/kills.py --kills 100 --folder kills
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

import h5py
import numpy as np
from support.plane import photograph_plane
from support.plane_matcher import NODES, SECONDS_A_PAIR, environment

from romacli.store.journal import Journal
from romacli.types import Pair, PairResult

# The message of each command when its stage begins.
STAGES = {"matching": "matching:", "exporting": "reading pairs:", "importing": "verifying:"}


_FORK = multiprocessing.get_context("forkserver")
_FORK.set_forkserver_preload(["romacli.job.job", "romacli.job.outputs.database", "plane_matcher", "cv2", "h5py"])


def run_command(words: list[str], log: str) -> None:
    """A forked process: runs one command, with its messages in a file."""
    from romacli.cli.app import main

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["romacli", *words]
    main()


class Jobs:
    """Runs commands on one set of photographs, to completion or to a kill."""

    def __init__(self, folder: Path, images: int, seconds_a_pair: float) -> None:
        self.photos = folder / "photo graphs"
        self._log = folder / "messages.txt"
        names = [f"ü {k:02}.png" for k in range(images)]
        plane = photograph_plane(self.photos, names)
        known = environment(folder / "env", plane.by_digest, **{NODES: 48, SECONDS_A_PAIR: seconds_a_pair})
        os.environ.update(known)
        sys.path.insert(0, str(folder / "env"))
        self._longest: Counter[str] = Counter()

    def words(self, stage: str, job: Path) -> list[str]:
        return {
            "matching": ["match", str(self.photos), "-o", str(job), "--model", "plane", "--max-keypoints", "800"],
            "exporting": ["aggregate", str(job), "--max-keypoints", "800"],
            "importing": ["colmap-import", str(self.photos), "-o", str(job), "--camera-mode", "single"],
        }[stage]

    def finish(self, stage: str, job: Path) -> None:
        """Run a command to completion, and record the duration of its stage."""
        process = self._start(stage, job)
        begun = self._wait_for(stage, process)
        process.join()
        self._longest[stage] = max(self._longest[stage], time.monotonic() - begun)  # type: ignore[type-var]
        self._require_success(stage, process)

    def kill(self, stage: str, job: Path, share: float) -> tuple[bool, set[frozenset[str]]]:
        """Kill a command when `share` of the stage's duration has passed since it began.

        Returns whether it was still running, and the pairs that were finished just before.
        """
        process = self._start(stage, job)
        self._wait_for(stage, process)
        process.join(share * self._longest[stage])
        seen = finished(job)
        process.kill()
        process.join()
        return process.exitcode == -signal.SIGKILL, seen

    def _start(self, stage: str, job: Path) -> BaseProcess:
        self._log.unlink(missing_ok=True)
        process = _FORK.Process(target=run_command, args=(self.words(stage, job), str(self._log)))
        process.start()
        return process

    def _wait_for(self, stage: str, process: BaseProcess) -> float:
        """The time at which the stage began, or the process ended without it."""
        while process.is_alive() and STAGES[stage] not in self._said():
            time.sleep(0.002)
        if not process.is_alive():
            self._require_success(stage, process)
        return time.monotonic()

    def _said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def _require_success(self, stage: str, process: BaseProcess) -> None:
        if process.exitcode != 0:
            raise SystemExit(f"{stage} failed with {process.exitcode}:\n{self._said()}")


def finished(job: Path) -> set[frozenset[str]]:
    with Journal(job / "journal", verify=True) as journal:
        return {frozenset(pair) for pair in journal.pairs}


def unreadable(job: Path) -> Iterator[str]:
    """The incomplete files of a job."""
    with Journal(job / "journal", verify=True) as journal:
        yield from journal.damaged
    for path in job.glob("*.h5"):
        try:
            read_all(path)
        except (OSError, RuntimeError, KeyError) as error:
            yield f"{path}: {error}"
    for path in job.glob("database.db"):
        if rows(path, "PRAGMA integrity_check") != [("ok",)]:
            yield f"{path}: not sound"


def read_all(path: Path) -> dict[str, np.ndarray]:
    """Every dataset of an HDF5 file."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


def results(job: Path) -> dict[Pair, PairResult]:
    with Journal(job / "journal", verify=True) as journal:
        return {pair: journal.read(pair) for pair in (tuple(sorted(pair)) for pair in journal.pairs)}


def differences(one: Path, other: Path) -> Iterator[str]:
    """The differences between two finished jobs."""
    first, second = results(one), results(other)
    if first.keys() != second.keys():
        yield f"pairs: {len(first)} and {len(second)}"
    for pair in first.keys() & second.keys():
        sides = [vars(result) for result in (first[pair], second[pair])]
        if not all(np.array_equal(value, sides[1][name]) for name, value in sides[0].items()):
            yield f"the warp of {pair}"
    for name in ("features.h5", "matches.h5"):
        datasets = read_all(one / name), read_all(other / name)
        if datasets[0].keys() != datasets[1].keys():
            yield f"the groups of {name}"
        elif not all(np.array_equal(values, datasets[1][key]) for key, values in datasets[0].items()):
            yield f"the values of {name}"
    for table in ("images", "keypoints", "matches", "two_view_geometries"):
        query = f"SELECT * FROM {table} ORDER BY 1"
        if rows(one / "database.db", query) != rows(other / "database.db", query):
            yield f"{table} of database.db"


def kill_and_resume(folder: Path, kills: int, *, images: int, seconds_a_pair: float, seed: int) -> dict[str, object]:
    """Kill jobs the given number of times, and report what was lost."""
    rng = random.Random(seed)
    jobs = Jobs(folder, images, seconds_a_pair)
    alone = folder / "alone"
    for stage in STAGES:
        jobs.finish(stage, alone)
    hit: Counter[str] = Counter()
    report: dict[str, list[str]] = {"lost_pairs": [], "unreadable": [], "differences": []}
    rounds = 0
    while sum(hit.values()) < kills:
        job = folder / f"job {rounds}"
        rounds += 1
        for stage in STAGES:
            seen: set[frozenset[str]] = set()
            for _ in range(min(rng.randint(2, 5), kills - sum(hit.values()))):
                if stage != "matching":
                    make_stale(job, stage)
                was_running, now = jobs.kill(stage, job, rng.uniform(0, 0.9))
                hit[stage if was_running else "too late"] += was_running
                seen |= now
                report["lost_pairs"] += [" ".join(pair) for pair in seen - finished(job)]
                report["unreadable"] += unreadable(job)
            jobs.finish(stage, job)
        report["differences"] += differences(alone, job)
        if not any(report.values()):
            shutil.rmtree(job)
    return {"kills": sum(hit.values()), "jobs": rounds, **hit, **{key: len(found) for key, found in report.items()},
            "first": next((found[0] for found in report.values() if found), None)}  # fmt: skip


def make_stale(job: Path, stage: str) -> None:
    """Remove outputs, so that a command has work to do."""
    manifest = json.loads((job / "manifest.json").read_text(encoding="utf-8"))
    manifest["views"] = {
        name: noted for name, noted in manifest["views"].items() if stage == "importing" and name == "keypoints"
    }
    (job / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Kill jobs at random moments and check that nothing was lost.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--folder", type=Path, required=True, help="working folder; must not exist")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--seconds-a-pair", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    chosen.folder.mkdir(parents=True)
    start = time.monotonic()
    report = kill_and_resume(
        chosen.folder, chosen.kills, images=chosen.images, seconds_a_pair=chosen.seconds_a_pair, seed=chosen.seed
    )
    print(json.dumps({**report, "minutes": round((time.monotonic() - start) / 60, 1)}, indent=1))
    sys.exit(report["first"] is not None)


if __name__ == "__main__":
    main()
