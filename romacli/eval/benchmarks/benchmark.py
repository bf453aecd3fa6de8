"""Benchmarks: pairs with known truth, protocols that turn matches into errors, and published figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from romacli.errors import InputError
from romacli.types import DenseMatch, Pair, Size
from romacli.words import counted, first_few

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Task:
    """A pair to evaluate. names: relative to the data folder; sizes: of both; truth: in the form its solver needs."""

    names: Pair
    sizes: tuple[Size, Size]
    truth: Any


class Solver(Protocol):
    """Estimates the truth of a task from point pairs; its text describes the method."""

    def errors(self, task: Task, points0: np.ndarray, points1: np.ndarray) -> Sequence[float]:
        """Errors of the estimate; points (N, 2) in COLMAP px. Infinite without an estimate."""
        ...

    def __str__(self) -> str: ...


@runtime_checkable
class WarpReader(Protocol):
    """Compares whole warps with the truth of a task; its text says where."""

    def read(self, task: Task, warps: DenseMatch) -> Sequence[float]:
        """Errors of the warps in both directions."""
        ...

    def __str__(self) -> str: ...


class Measure(Protocol):
    """Turns errors into figures; its text says which."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The column headings."""
        ...

    def figures(self, tasks: Sequence[Task], rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
        """One per column, in percent unless the column says otherwise, from a row of errors per task."""
        ...

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Published:
    """Published figures, in the order of the columns; None if unknown."""

    method: str
    figures: tuple[float | None, ...]
    source: str


@dataclass(frozen=True)
class Evaluation:
    """A protocol of a benchmark.

    about: its authors and peculiarities.
    solver: a WarpReader gets whole warps instead of samples.
    samples: number of balanced samples of `points` points drawn from each pair's warps; keypoint matchers return all
        their matches.
    estimates: number per sample, each after shuffling it.
    quarters: clockwise quarter turns of the second picture; whole warps are read at each of them.
    measure, published: if they differ from the benchmark's.
    """

    about: str
    solver: Solver | WarpReader
    samples: int = 1
    points: int = 5000
    estimates: int = 1
    quarters: tuple[int, ...] = (0,)
    measure: Measure | None = None
    published: tuple[Published, ...] | None = None

    def __str__(self) -> str:
        if isinstance(self.solver, WarpReader):
            degrees = ", ".join(f"{90 * turns}" for turns in self.quarters)
            turned = f", all errors with the second picture turned by {degrees} degrees" if any(self.quarters) else ""
            return f"{self.about}: {self.solver}{turned}"
        each = f", {self.estimates} estimates of each" if self.estimates > 1 else ""
        drawn = f"{self.samples} balanced samples" if self.samples > 1 else "1 balanced sample"
        sampled = f"{drawn} of {self.points} points from the warps of both directions{each}"
        return f"{self.about}: {sampled}; {self.solver}"


@dataclass(frozen=True)
class Benchmark:
    """A row of the table.

    measure: definition of the figures.
    layout: required contents of the data folder, line by line; origin: source of the data.
    read: the tasks in a folder; raises InputError if the data are incomplete.
    evaluations: by the name of the protocol, the usual one first; each has a measure and published figures, or None for
        the benchmark's.
    pairs: number of pairs of the published figures, if known.
    apart: why the published figures are not comparable; empty if they are.
    sizes: of both passes in the papers' runs, by matcher; others use their own.
    judged_by: the module with `evaluate` for its evaluations.
    draws: whether evaluations are random; model: the model shown in examples; noun: what is counted.
    """

    name: str
    summary: str
    measure: Measure
    layout: str
    origin: str
    read: Callable[[Path], list[Task]]
    evaluations: Mapping[str, Any]
    pairs: int | None = None
    published: tuple[Published, ...] = ()
    apart: str = ""
    sizes: Mapping[str, tuple[Size, Size | None]] = field(default_factory=dict)
    judged_by: str = "romacli.eval.benchmarks.run"
    draws: bool = True
    model: str = "roma-outdoor"
    noun: str = "pair"

    def measure_of(self, evaluation: Any) -> Measure:
        """The measure of a protocol."""
        measure: Measure | None = evaluation.measure
        return measure or self.measure

    def published_by(self, evaluation: Any) -> tuple[Published, ...]:
        """The published figures for a protocol."""
        published: tuple[Published, ...] | None = evaluation.published
        return self.published if published is None else published


def read_by(module: str, root: Path, *, read: str = "read", **more: Any) -> list[Task]:
    """The tasks read by a function of a module of this package, which is imported when needed."""
    tasks: list[Task] = getattr(import_module(f"romacli.eval.benchmarks.{module}"), read)(root, **more)
    return tasks


def sizes_of(root: Path, names: Iterable[str]) -> dict[str, Size]:
    """The sizes of pictures, from their headers.

    Raises:
        InputError: some are missing or truncated, or one is not a picture.
    """
    from romacli.images.decode import is_cut_off
    from romacli.images.metadata import read_metadata

    names = list(dict.fromkeys(names))
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise InputError(
            f"{root} lacks {len(missing)} of {len(names)} pictures that its lists name, first {missing[0]}. Unpack the "
            "data again, or finish the download; `romacli eval list` says how they lie."
        )
    if cut := [name for name in names if is_cut_off(root / name)]:
        raise InputError(
            f"{root} contains {counted(len(cut), 'picture')} cut off before the end, first {cut[0]}. Unpack the data "
            "again, or finish the download."
        )
    return {name: read_metadata(root / name).size for name in names}


def tasks_of(root: Path, found: Sequence[tuple[Pair, Any]]) -> list[Task]:
    """Tasks from pairs with their truths.

    Raises:
        InputError: as from `sizes_of`.
    """
    sizes = sizes_of(root, (name for pair, _ in found for name in pair))
    return [Task(pair, (sizes[pair[0]], sizes[pair[1]]), truth) for pair, truth in found]


def read_numbers(path: Path, *shapes: tuple[int | None, int]) -> np.ndarray:
    """The table (rows, columns) of numbers in a text file, in one of the given shapes; None is any number of rows.

    Raises:
        InputError: the file is missing or contains something else.
    """
    import numpy as np

    try:
        found = np.loadtxt(path, dtype=np.float64, ndmin=2, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as numbers. Unpack the data again.") from error
    rows, columns = found.shape
    if (rows, columns) not in shapes and (None, columns) not in shapes or not rows or not np.isfinite(found).all():
        expected = " or ".join(f"{height or 'any'} x {width}" for height, width in shapes)
        raise InputError(f"{path} contains {rows} x {columns} numbers, expected {expected}. Unpack the data again.")
    return found


def require(root: Path, parts: Sequence[str]) -> None:
    """Check that files or folders of the data exist.

    Raises:
        InputError: some do not.
    """
    missing = [part for part in parts if not (root / part).exists()]
    if missing:
        raise InputError(
            f"{root} lacks {first_few(missing)}. Unpack the benchmark's data "
            "there, or name the folder that holds them; `romacli eval list` says how they lie and where from."
        )
