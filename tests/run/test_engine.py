"""Pieces of work find a process whatever happens to processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from support.plane import PlanePhotographs, photograph_plane
from support.plane_matcher import FATAL, SECONDS_A_PAIR, environment

from romacli.errors import BusyError
from romacli.matchers.options import MatcherOptions
from romacli.progress import Silent
from romacli.run.engine import run_pieces
from romacli.run.match import MatchSummary
from romacli.run.options import MatchOptions
from romacli.run.pool import Outcome
from romacli.run.ray import RayPool
from romacli.run.worker import WorkerSetup
from romacli.stop import Stopped, StopRequest
from romacli.store.journal import Journal
from romacli.types import ImageList, Pair

NAMES = [f"{i}.png" for i in range(9)]
PIECES: list[list[Pair]] = [[(f"{k}", f"{k + 1}"), (f"{k}", f"{k + 2}")] for k in range(0, 30, 3)]


class FakePool:
    """Processes that match one pair at a time and die on request."""

    def __init__(self, size: int, dies: Callable[[Pair], bool]) -> None:
        self.size, self._dies = size, dies
        self.done: list[Pair] = []
        self._given: deque[tuple[int, Sequence[Pair]]] = deque()
        self.busy: set[int] = set()

    def submit(self, worker: int, pairs: Sequence[Pair]) -> None:
        assert worker not in self.busy
        self.busy.add(worker)
        self._given.append((worker, pairs))

    def outcomes(self, timeout_s: float) -> Iterator[tuple[int, Outcome]]:
        worker, pairs = self._given.popleft()
        self.busy.remove(worker)
        yield worker, self._outcome(pairs)

    def _outcome(self, pairs: Sequence[Pair]) -> Outcome:
        for pair in pairs:
            if self._dies(pair):
                return "killed"
            self.done.append(pair)
        return MatchSummary(matched=len(pairs), encodes=3, run_in=Counter(float32=len(pairs)))

    def close(self) -> None:
        pass

    def remaining(self) -> list[Pair]:
        return [pair for part in PIECES for pair in part if pair not in self.done]


def test_every_piece_is_matched_once() -> None:
    pool = FakePool(3, lambda _: False)
    total = run_pieces(PIECES, pool, pool.remaining, progress=Silent(), stop=StopRequest())
    assert sorted(pool.done) == sorted(pair for part in PIECES for pair in part)
    assert (total.matched, total.encodes, total.failed, total.given_up) == (20, 30, 0, ())
    assert total.run_in == {"float32": 20}


def test_what_a_dead_process_left_goes_to_another_and_nothing_is_matched_twice() -> None:
    fatal = {PIECES[3][1], PIECES[5][0]}
    pool = FakePool(2, lambda pair: pair in fatal and not fatal.discard(pair))
    total = run_pieces(PIECES, pool, pool.remaining, progress=Silent(), stop=StopRequest())
    assert sorted(pool.done) == sorted(pair for part in PIECES for pair in part)
    assert total.given_up == ()


def test_a_pair_that_ends_three_processes_is_given_up_and_the_rest_goes_on() -> None:
    died = []
    pool = FakePool(2, lambda pair: pair == PIECES[4][1] and not died.append(pair))
    total = run_pieces(PIECES, pool, pool.remaining, progress=Silent(), stop=StopRequest())
    assert total.given_up == (PIECES[4][1],)
    assert len(died) == 3
    assert len(pool.done) == 19


def test_an_expected_failure_ends_the_run() -> None:
    pool = FakePool(1, lambda _: False)
    pool._outcome = lambda pairs: BusyError("no memory")  # type: ignore[method-assign]
    with pytest.raises(BusyError, match="no memory"):
        run_pieces(PIECES, pool, pool.remaining, progress=Silent(), stop=StopRequest())


def test_a_stop_ends_the_run() -> None:
    stop = StopRequest()
    stop.set(signal.SIGTERM)
    with pytest.raises(Stopped):
        run_pieces(PIECES, FakePool(1, lambda _: False), list, progress=Silent(), stop=stop)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> PlanePhotographs:
    return photograph_plane(tmp_path_factory.mktemp("plane photos") / "photos", NAMES)


def command(photographs: PlanePhotographs, output: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "romacli", "match", str(photographs.root), "-o", str(output), "--json",
            "--model", "plane", "--method", "cells", "--no-refine", *words]  # fmt: skip


def finished(output: Path) -> set[frozenset[str]]:
    with Journal(output / "journal", verify=True) as journal:
        assert journal.damaged == []
        return {frozenset(pair) for pair in journal.pairs}


def test_local_processes_lose_nothing_when_one_is_killed(photographs: PlanePhotographs, tmp_path: Path) -> None:
    place = float(photographs.plane_from_image[NAMES[4]][0, 2])
    known = environment(tmp_path / "env", photographs.by_digest, **{FATAL: f"{place} {tmp_path / 'mark'}"})
    run = subprocess.run(
        command(photographs, tmp_path / "job", "--num-processes", "2"), env=known, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "a process died (killed by SIGKILL)" in run.stderr
    values = json.loads(run.stdout)
    assert (values["pairs"], values["failed"]) == (36, 0)
    assert len(finished(tmp_path / "job")) == 36


@pytest.mark.slow
def test_a_fatal_pair_is_given_up_and_listed(photographs: PlanePhotographs, tmp_path: Path) -> None:
    place = float(photographs.plane_from_image[NAMES[8]][0, 2])
    known = environment(tmp_path / "env", photographs.by_digest, **{FATAL: f"{place}"})
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("0.png 1.png\n7.png 8.png\n")
    words = ("--engine", "local", "--pairs", str(pairs))
    run = subprocess.run(command(photographs, tmp_path / "job", *words), env=known, capture_output=True, text=True)
    assert run.returncode == 4, run.stderr
    assert "1 pair was given up, starting with 7.png 8.png; listed in" in run.stderr
    assert (tmp_path / "job" / "given-up.txt").read_text() == "7.png 8.png\n"


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow), (signal.SIGKILL, -9)]
)
def test_processes_end_with_their_driver_and_the_same_command_continues(
    photographs: PlanePhotographs, tmp_path: Path, number: int, code: int
) -> None:
    known = environment(tmp_path / "env", photographs.by_digest, **{SECONDS_A_PAIR: "0.1"})
    words = command(photographs, tmp_path / "job", "--num-processes", "2")
    driver = subprocess.Popen(words, env=known, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while sum(path.stat().st_size > 5_000 for path in tmp_path.glob("job/journal/*.jnl")) < 2:
        assert driver.poll() is None
        time.sleep(0.02)
    workers = {int(path.stem.split("-")[-2]) for path in tmp_path.glob("job/journal/*.jnl")}
    driver.send_signal(number)
    assert driver.wait(timeout=60) == code
    end = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < end, "a process outlived its driver"
        time.sleep(0.1)
    before = finished(tmp_path / "job")
    assert 0 < len(before) < 36
    known[SECONDS_A_PAIR] = "0"
    again = subprocess.run(words, env=known, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert finished(tmp_path / "job") > before
    assert f"{len(before)} of 36 pairs are already done" in again.stderr


def test_ray_that_is_not_installed_is_a_sentence(photographs: PlanePhotographs, tmp_path: Path) -> None:
    (tmp_path / "env" / "ray").mkdir(parents=True)
    (tmp_path / "env" / "ray" / "__init__.py").write_text("raise ImportError('no ray here')\n")
    known = environment(tmp_path / "env", photographs.by_digest)
    words = command(photographs, tmp_path / "job", "--engine", "ray")
    run = subprocess.run(words, env=known, capture_output=True, text=True)
    assert run.returncode == 2, run.stderr
    assert "--engine ray needs Ray. Install it: pip install 'romacli[ray]'." in run.stderr
    assert not (tmp_path / "job").exists()


class FakeRay:
    """A cluster of two nodes, one of which is gone."""

    def __init__(self, **resources: float) -> None:
        self._resources = resources

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {name: 2 * count for name, count in self._resources.items()}

    def nodes(self) -> list[dict[str, object]]:
        gone = {name: 100.0 for name in self._resources}
        return [{"Alive": True, "Resources": self._resources}] * 2 + [{"Alive": False, "Resources": gone}]


@pytest.mark.parametrize(
    ("resources", "device", "processes", "expected"),
    [
        ({"CPU": 4.0}, "auto", None, (8, 4)),
        ({"CPU": 4.0}, "auto", 3, (3, 3)),
        ({"CPU": 16.0, "GPU": 2.0}, "auto", None, (4, 1)),
        ({"CPU": 16.0, "GPU": 2.0}, "cpu", None, (4, 2)),
    ],
)
def test_ray_actors_that_share_a_nodes_memory_divide_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    resources: dict[str, float],
    device: str,
    processes: int | None,
    expected: tuple[int, int],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay(**resources))
    matcher = MatcherOptions(device=device)
    setup = WorkerSetup(ImageList(tmp_path, ()), tmp_path, "", {}, "mini", matcher, MatchOptions(), (), 0)
    pool = RayPool(setup, processes, Silent())
    assert (pool.size, pool._setup.match.processes) == expected


def test_ray_actors_lose_nothing_when_one_is_killed(photographs: PlanePhotographs, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    place = float(photographs.plane_from_image[NAMES[4]][0, 2])
    known = environment(tmp_path / "env", photographs.by_digest, **{FATAL: f"{place} {tmp_path / 'mark'}"})
    words = command(photographs, tmp_path / "job", "--engine", "ray", "--num-processes", "2")
    run = subprocess.run(words, env={**known, "RAY_DEDUP_LOGS": "0"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert os.path.exists(tmp_path / "mark")
    assert "a process died" in run.stderr
    assert len(finished(tmp_path / "job")) == 36
