"""What such a benchmark knows of a pair, and how it counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Published, Task
from romacli.eval.benchmarks.measures import Found
from romacli.types import Pair, Size

OUTSIDE_PX = 2.0  # that annotators may have been off at an edge


@dataclass(frozen=True)
class PointTruth:
    """Points (N, 2) of both pictures in COLMAP px; unit: (2,) px along x and y of the second that an error of 1 is.

    pictures: RGB uint8 (H, W, 3), where they are no files.
    """

    points: tuple[np.ndarray, np.ndarray]
    unit: np.ndarray
    pictures: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class PointEvaluation:
    """One way to count points that are found.

    semantic: descriptors are to find the same part of another thing, not the same thing.
    measure: of the errors; published: what was published by it, None for the benchmark's.
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
    """A task of points that count pixels' centres from 0, as annotations and their evaluators do.

    Raises:
        InputError: there are none, not as many in both pictures, no box, or one lies well outside its picture.
    """
    one, other = (np.asarray(each, np.float64).reshape(-1, 2) + 0.5 for each in points)
    if not len(one) == len(other) > 0 or not np.isfinite([one, other]).all() or not unit > 0:
        raise InputError(f"{source}: {names[0]} and {names[1]} have no points in common, or no box about them.")
    inside = np.clip(one, 0, sizes[0])
    if np.abs(one - inside).max() > OUTSIDE_PX:
        raise InputError(f"{source}: points of {names[0]} lie outside it. Unpack the pictures at their original size.")
    return Task(names, sizes, PointTruth((inside, other), np.full(2, unit)))
