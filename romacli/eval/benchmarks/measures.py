"""The figures of the papers, computed from errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from romacli.eval.benchmarks.benchmark import Task
from romacli.eval.statistics import pose_auc

Rows = Sequence[Sequence[float]]
_DEGREES, _METRES = np.linspace(1, 10, 10), np.geomspace(0.2, 5, 10)


@dataclass(frozen=True)
class Areas:
    """The area under recall over error up to each threshold, all errors of all pairs pooled.

    last_twice: the last error of each pair counts twice.
    """

    of: str
    thresholds: tuple[float, ...]
    unit: str
    last_twice: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{threshold:g}" for threshold in self.thresholds)

    def __str__(self) -> str:
        twice = ", the last error of each pair counting twice" if self.last_twice else ""
        return f"AUC of {self.of} at {', '.join(self.columns)} {self.unit}{twice}"

    def figures(self, tasks: Sequence[Task], rows: Rows) -> tuple[float, ...]:
        pooled = np.array([error for row in rows for error in (*row, *(row[-1:] if self.last_twice else ()))])
        return tuple(100 * pose_auc(pooled, threshold) for threshold in self.thresholds)


@dataclass(frozen=True)
class Shares:
    """The share of each pair's points whose error is at most a threshold, averaged over pairs.

    thresholds: px, averaged over in the first column; `shown` have columns of their own.
    """

    of: str
    thresholds: tuple[float, ...]
    shown: tuple[float, ...] = (1, 3, 5, 10)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("mean", *(f"{threshold:g}" for threshold in self.shown))

    def __str__(self) -> str:
        first, *_, last = self.thresholds
        return f"share of {self.of}, mean over {first:g}, {first + 1:g} .. {last:g} px and at {_listed(self.shown)} px"

    def figures(self, tasks: Sequence[Task], rows: Rows) -> tuple[float, ...]:
        def share(threshold: float) -> float:
            return 100 * float(np.mean([(np.array(row) <= threshold).mean() for row in rows]))

        return (float(np.mean([share(t) for t in self.thresholds])), *(share(t) for t in self.shown))


@dataclass(frozen=True)
class BagAreas:
    """The area under recall over error of each model's pairs, averaged over models.

    bags: numbers of photographs; models of as many have a column of their own, at the largest threshold.
    """

    of: str
    thresholds: tuple[float, ...]
    bags: tuple[int, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        thresholds = tuple(f"{threshold:g}" for threshold in self.thresholds)
        return (*thresholds, *(f"{thresholds[-1]} of {bag}" for bag in self.bags))

    def __str__(self) -> str:
        bags = f"; of {_listed(self.bags)} photographs at {self.thresholds[-1]:g}" if self.bags else ""
        return f"AUC of {self.of} at {_listed(self.thresholds)} deg, mean over models{bags}"

    def figures(self, tasks: Sequence[Task], rows: Rows) -> tuple[float, ...]:
        def mean(threshold: float, bag: int | None = None) -> float:
            errors = [
                np.array(row) for task, row in zip(tasks, rows, strict=True) if bag in (None, len(task.truth.names))
            ]
            return 100 * float(np.mean([pose_auc(one, threshold) for one in errors])) if errors else float("nan")

        return (*map(mean, self.thresholds), *(mean(self.thresholds[-1], bag) for bag in self.bags))


@dataclass(frozen=True)
class Means:
    """The means of shares, one per column."""

    columns: tuple[str, ...]
    about: str

    def __str__(self) -> str:
        return self.about

    def figures(self, tasks: Sequence[Task], rows: Rows) -> tuple[float, ...]:
        return tuple(100 * float(share) for share in np.mean(rows, axis=0))


@dataclass(frozen=True)
class Posed:
    """The share of queries with a pose, in a column per beginning of their names."""

    beginnings: tuple[str, ...] = ("",)
    columns: tuple[str, ...] = ("posed",)

    def __str__(self) -> str:
        return "share of queries with a pose, right or not"

    def figures(self, tasks: Sequence[Task], rows: Rows) -> tuple[float, ...]:
        def share(beginning: str) -> float:
            found = [bool(row) for task, row in zip(tasks, rows, strict=True) if task.names[0].startswith(beginning)]
            return 100 * float(np.mean(found)) if found else float("nan")

        return tuple(map(share, self.beginnings))


@dataclass(frozen=True)
class Found:
    """The share of points within each distance of the truth, over all points or averaged over pairs."""

    thresholds: tuple[float, ...]
    unit: str
    each_pair_alike: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{threshold:g}" for threshold in self.thresholds)

    def __str__(self) -> str:
        return f"share of points found within {_listed(self.thresholds)} {self.unit}"

    def figures(self, tasks: Sequence[Task], rows: Rows) -> tuple[float, ...]:
        parts = [np.array(row) for row in rows]
        if not self.each_pair_alike:
            parts = [np.concatenate(parts)]
        return tuple(
            100 * float(np.mean([(part <= threshold).mean() for part in parts])) for threshold in self.thresholds
        )


@dataclass(frozen=True)
class JointAccuracy:
    """The share of pairs whose errors of rotation in deg and translation in m are both below a threshold.

    Averaged over ten pairs of thresholds, then over scenes, which are the second folders of the names.
    """

    columns: tuple[str, ...] = ("mean",)

    def __str__(self) -> str:
        return "accuracy of poses, mean over 1 .. 10 deg together with 0.2 .. 5 m, and over scenes"

    def figures(self, tasks: Sequence[Task], rows: Rows) -> tuple[float, ...]:
        scenes: dict[str, list[Sequence[float]]] = {}
        for task, row in zip(tasks, rows, strict=True):
            scenes.setdefault(PurePosixPath(task.names[0]).parts[1], []).append(row)
        means = []
        for errors in scenes.values():
            degrees, metres = np.array(errors).T[:, :, None]
            means.append(((degrees < _DEGREES) & (metres < _METRES)).mean())
        return (100 * float(np.mean(means)),)


@dataclass(frozen=True)
class DenseFigures:
    """Means of the errors and shares of a reader of dense warps, over pairs that have any."""

    columns: tuple[str, ...] = ("EPE px", "PCK 1", "PCK 3", "PCK 5", "PCK 32")

    def __str__(self) -> str:
        return "mean error in px, and shares of covisible pixels within 1, 3, 5 and 32 px, means over pairs"

    def figures(self, tasks: Sequence[Task], rows: Rows) -> tuple[float, ...]:
        judged = np.array([row for row in rows if row])
        if not len(judged):
            return (float("nan"),) * len(self.columns)
        epe, *shares = judged.mean(0)
        return (float(epe), *(100 * float(share) for share in shares))


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
