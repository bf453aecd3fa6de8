"""The truths of point benchmarks, and their protocols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Published, Task
from romacli.eval.benchmarks.measures import Found
from romacli.types import Pair, Size

OUTSIDE_PX = 2.0  # maximum annotation error at an edge


@dataclass(frozen=True)
class PointTruth:
    """Points (N, 2) of both pictures in COLMAP px; unit: (2,) the px of the second, in x and y, of an error of 1.

    pictures: RGB uint8 (H, W, 3), if they are not files.
    """

    points: tuple[np.ndarray, np.ndarray]
    unit: np.ndarray
    pictures: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class PointEvaluation:
    """A protocol of point benchmarks.

    semantic: descriptors should find the same part of another object, not of the same object.
    measure: of the errors; published: figures by it, None for the benchmark's.
    """

    about: str
    semantic: bool
    measure: Found
    published: tuple[Published, ...] | None = None

    def __str__(self) -> str:
        how = "mean of the pairs' shares" if self.measure.each_pair_alike else "points of all pairs pooled"
        which = "semantic descriptors where the matcher has them" if self.semantic else "its usual descriptors"
        return f"{self.about}: {how}; {which}, or its warp"


def marked(names: Pair, sizes: tuple[Size, Size], points: Sequence[np.ndarray], unit: float, source: str) -> Task:
    """A task from annotated points, where (0, 0) is the centre of the top-left pixel.

    Raises:
        InputError: there are no points, their numbers differ, there is no box, or one is far outside its picture.
    """
    one, other = (np.asarray(each, np.float64).reshape(-1, 2) + 0.5 for each in points)
    if not len(one) == len(other) > 0 or not np.isfinite([one, other]).all() or not unit > 0:
        raise InputError(f"{source}: {names[0]} and {names[1]} have no points in common, or no box about them.")
    inside = np.clip(one, 0, sizes[0])
    if np.abs(one - inside).max() > OUTSIDE_PX:
        raise InputError(f"{source}: points of {names[0]} lie outside it. Unpack the pictures at their original size.")
    return Task(names, sizes, PointTruth((inside, other), np.full(2, unit)))
