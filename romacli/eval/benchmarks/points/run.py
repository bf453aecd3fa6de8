"""Evaluate pairs of pictures with known points: where the matcher finds them, and the errors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from romacli.errors import ImageError, PartialError
from romacli.eval.benchmarks.benchmark import Task
from romacli.eval.benchmarks.points.truth import PointEvaluation, PointTruth
from romacli.eval.benchmarks.run import Pass
from romacli.follow import Finder, View
from romacli.images.decode import read_image
from romacli.matchers.memory import free_bytes
from romacli.words import counted


class _Views:
    """Views of pictures; the most recently used are cached as far as memory allows."""

    def __init__(self, root: Path, finder: Finder, limit: int) -> None:
        self._root, self._finder, self._limit = root, finder, limit
        self._kept: OrderedDict[str, View] = OrderedDict()

    def of(self, name: str, picture: np.ndarray | None) -> View:
        """The view of a picture, read if it is not given."""
        if name not in self._kept:
            self._kept[name] = self._finder.view(read_image(self._root / name) if picture is None else picture)
        self._kept.move_to_end(name)
        view = self._kept[name]
        while len(self._kept) > 2 and len(self._kept) * view.nbytes > self._limit:
            self._kept.popitem(last=False)
        return view


def evaluate(run: Pass, tasks: Sequence[Task], evaluation: PointEvaluation) -> None:
    """Find the points of all tasks missing in the record; each picture is encoded once as far as memory allows.

    Raises:
        PartialError: some pictures cannot be read; everything else is done.
        UsageError: the matcher cannot find given points.
        Stopped: by a signal; finished tasks are in the record.
    """
    finder = Finder(run.matcher, semantic=evaluation.semantic)
    views = _Views(run.root, finder, free_bytes(run.matcher))
    waiting = sorted(run.record.waiting(tasks), key=lambda task: task.names)
    failures: list[str] = []
    run.progress.begin("evaluating", len(waiting))
    for task in waiting:
        run.stop.check()
        truth: PointTruth = task.truth
        try:
            one, other = (
                views.of(name, None if truth.pictures is None else truth.pictures[side])
                for side, name in enumerate(task.names)
            )
        except ImageError as error:
            failures.append(str(error))
            continue
        found = finder.find(one, other, truth.points[0])
        run.record.add(task.names, np.linalg.norm((found.xy - truth.points[1]) / truth.unit, axis=1).tolist())
        run.progress.advance()
    if failures:
        raise PartialError(
            f"{counted(len(failures), 'pair')} could not be judged, and figures of the others would be of another "
            f"benchmark: {failures[0]}"
        )
