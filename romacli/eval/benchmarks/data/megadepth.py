"""MegaDepth's pairs for relative pose: lists of scenes in npz files, photographs in Undistorted_SfM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.poses import Pose
from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, require, tasks_of
from romacli.eval.benchmarks.solvers import PosedTruth, check_intrinsics
from romacli.store.pickled import read_arrays
from romacli.types import Pair

KEYS = ("pair_infos", "image_paths", "intrinsics", "poses")


def read(root: Path, lists: tuple[str, ...]) -> list[Task]:
    """The pairs of some lists, in their order.

    Raises:
        InputError: a list or a photograph is missing, a list is damaged, or K belongs to another resolution.
    """
    require(root, lists)
    tasks = tasks_of(root, [pair for name in lists for pair in _pairs(root / name)])
    check_intrinsics(root, tasks)
    return tasks


def _pairs(path: Path) -> list[tuple[Pair, PosedTruth]]:
    infos, names, intrinsics, poses = read_arrays(path, KEYS)
    found = []
    for index, info in enumerate(infos):
        try:
            i, j = (int(number) for number in info[0])
            found.append(((_name(names[i]), _name(names[j])), _truth(intrinsics, poses, i, j)))
        except (TypeError, ValueError, IndexError) as error:
            raise InputError(
                f"{path}: pair {index} has no two photographs with intrinsics and poses. Fetch it again."
            ) from error
    if not found:
        raise InputError(f"{path} lists no pairs. Fetch it again.")
    return found


def _name(value: Any) -> str:
    """A path inside the folder; lists must not refer to files outside."""
    path = Path(str(value))
    if value is None or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{value} is no name")
    return path.as_posix()


def _truth(intrinsics: Any, poses: Any, i: int, j: int) -> PosedTruth:
    def known(number: int) -> tuple[np.ndarray, Pose]:
        K, matrix = (np.asarray(values[number], np.float64) for values in (intrinsics, poses))
        matrix = matrix.reshape(4, 4)
        return K.reshape(3, 3), Pose(matrix[:3, :3], matrix[:3, 3])

    return PosedTruth.between(known(i), known(j))
