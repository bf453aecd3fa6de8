"""Evaluate a benchmark's pairs: each picture is encoded once, and finished pairs are recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from romacli.disk import unwritable
from romacli.errors import PartialError, SettingsDifferError, StoreError, UsageError
from romacli.eval.benchmarks.asked import Quarters, Sampler
from romacli.eval.benchmarks.benchmark import Benchmark, Evaluation, Task, WarpReader
from romacli.eval.two_view import correspondences
from romacli.matchers.matcher import DenseMatcher, Matcher, pair_seed
from romacli.progress import Progress
from romacli.run.match import match_images
from romacli.run.options import MatchOptions
from romacli.stop import StopRequest
from romacli.types import DenseMatch, ImageList, Pair, PairList, PairResult, canonical
from romacli.words import counted

Errors = dict[Pair, list[float]]


@dataclass(frozen=True)
class BenchmarkResult:
    """The result of a run.

    figures: by the measure's columns.
    without_estimate: number of infinite errors among `errors`.
    """

    figures: dict[str, float]
    pairs: int
    errors: int
    without_estimate: int


class Record:
    """Errors per pair in a file of JSON lines, whose first line describes the run.

    Raises:
        SettingsDifferError: the file contains errors of another run.
        StoreError: it is another kind of file, damaged or not writable.
    """

    def __init__(self, path: Path | None, header: Mapping[str, Any]) -> None:
        self._path, self.errors = path, Errors()
        header = json.loads(json.dumps(header, default=str))
        if path is None:
            return
        lines = self._whole_lines(path)
        if not lines:
            self._write([header], "w")
            return
        try:
            known, *rows = map(json.loads, lines)
            self.errors = {
                (one, other): [math.inf if error is None else float(error) for error in row["errors"]]
                for row in rows
                for one, other in [row["names"]]
            }
            differing = sorted(key for key in header if known[key] != header[key])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path} contains no errors of a benchmark. Give another -o, or remove it.") from error
        if differing:
            raise SettingsDifferError(
                f"{path} was made with another {', '.join(differing)}. Give another -o, or run as before."
            )

    @property
    def folder(self) -> Path | None:
        """A folder next to the file for intermediate results; None without a file."""
        return self._path and self._path.with_name(f"{self._path.name}.kept")

    def waiting(self, tasks: Iterable[Task]) -> list[Task]:
        """The tasks that are not in the record yet."""
        return [task for task in tasks if task.names not in self.errors]

    def add(self, names: Pair, errors: list[float]) -> None:
        self.errors[names] = errors
        if self._path is not None:
            finite = [error if math.isfinite(error) else None for error in errors]
            self._write([{"names": names, "errors": finite}], "a")

    def _whole_lines(self, path: Path) -> list[str]:
        """The lines of the file; an unfinished last line is removed from it."""
        try:
            if not path.exists():
                return []
            whole = path.read_bytes()
            end = whole.rfind(b"\n") + 1
            if end < len(whole) and end:
                with path.open("rb+") as file:
                    file.truncate(end)
            return (whole[:end] or whole).decode("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{path} cannot be read as errors of a benchmark. Give another -o.") from error

    def _write(self, rows: Iterable[Mapping[str, Any]], mode: str) -> None:
        assert self._path is not None
        text = "".join(json.dumps(row) + "\n" for row in rows)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open(mode, encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise unwritable(self._path, error, num_bytes=len(text)) from error


@dataclass(frozen=True)
class Pass:
    """A run of a matcher on a benchmark. root: the folder of its data."""

    root: Path
    matcher: Matcher
    record: Record
    options: MatchOptions
    progress: Progress
    stop: StopRequest


def evaluate(run: Pass, tasks: Sequence[Task], evaluation: Evaluation) -> None:
    """Evaluate all tasks missing in the record.

    Raises:
        PartialError: some pictures cannot be read; everything else is done.
        Stopped: by a signal; finished tasks are in the record.
    """
    waiting: dict[Pair, dict[Pair, Task]] = {}
    for task in run.record.waiting(tasks):
        waiting.setdefault(canonical(task.names), {})[task.names] = task

    def judge(results: Sequence[tuple[Pair, PairResult]]) -> None:
        for pair, result in results:
            for names, task in waiting[canonical(pair)].items():
                turned = names != pair
                errors = _errors(task, result, evaluation, samples=samples, turned=turned, seed=run.options.seed)
                run.record.add(names, errors)

    shown = dict.fromkeys(name for group in waiting.values() for task in group.values() for name in task.names)
    todo = PairList(tuple(next(iter(group)) for group in waiting.values()))
    matcher = asked = run.matcher
    samples, reads_warps = 1, isinstance(evaluation.solver, WarpReader)
    if isinstance(matcher, DenseMatcher):
        samples = evaluation.samples
        asked = (
            Quarters(matcher, evaluation.quarters)
            if reads_warps
            else Sampler(matcher, points=evaluation.points, samples=samples)
        )
    elif reads_warps:
        raise UsageError(f"model {matcher.name} gives points, and the protocol reads warps. Choose another --protocol.")
    summary = match_images(
        *(ImageList(run.root, tuple(shown)), todo, asked, judge, run.options),
        progress=run.progress,
        stop=run.stop,
        title="evaluating",
    )
    if summary.failures:
        raise PartialError(
            f"{counted(summary.failed, 'pair')} could not be judged, and figures of the others would be of another "
            f"benchmark: {next(iter(summary.failures.values()))}"
        )


def summarise(
    benchmark: Benchmark, evaluation: Any, tasks: Sequence[Task], errors: Mapping[Pair, Sequence[float]]
) -> BenchmarkResult:
    """The figures of tasks that are all in the record."""
    rows = [list(errors[task.names]) for task in tasks]
    measure = benchmark.measure_of(evaluation)
    figures = dict(zip(measure.columns, measure.figures(tasks, rows), strict=True))
    return BenchmarkResult(figures, len(rows), sum(map(len, rows)), sum(math.isinf(one) for row in rows for one in row))


def _errors(
    task: Task, result: PairResult | list[DenseMatch], evaluation: Evaluation, *, samples: int, turned: bool, seed: int
) -> list[float]:
    """Errors of each estimate of each sample; matches that are not samples are all used each time."""
    solver = evaluation.solver
    if isinstance(solver, WarpReader):
        assert isinstance(result, list)
        return [error for warps in result for error in solver.read(task, _turned(warps) if turned else warps)]
    assert not isinstance(result, list)
    found = correspondences(result)
    sides = [found.keypoints1, found.keypoints0] if turned else [found.keypoints0, found.keypoints1]
    rng = np.random.default_rng(pair_seed(*task.names, seed=seed))
    errors: list[float] = []
    for number in range(evaluation.samples):
        one, other = (np.split(side, samples)[number % samples] for side in sides)
        for _ in range(evaluation.estimates):
            order = rng.permutation(len(one))
            one, other = one[order], other[order]
            errors += solver.errors(task, one, other)
    return errors


def _turned(match: DenseMatch) -> DenseMatch:
    """The same pair with the pictures exchanged."""
    assert match.warp_BA is not None
    sides = (match.warp_BA, match.certainty_BA, match.warp_AB, match.certainty_AB)
    return DenseMatch(*sides, match.size_B, match.size_A)  # type: ignore[arg-type]
