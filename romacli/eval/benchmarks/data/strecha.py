"""One of Strecha's scenes: photographs, each with a camera file NAME.camera."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

from romacli.colmap.pose_files import SUFFIX, read_strecha
from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, tasks_of
from romacli.eval.benchmarks.solvers import PosedTruth, check_intrinsics


def read(root: Path) -> list[Task]:
    """All pairs of a scene's photographs, which may be anywhere below the folder, as may their camera files.

    Raises:
        InputError: there are fewer than two cameras, a photograph is missing, a file is damaged, K belongs to another
            resolution, or a name occurs twice.
    """
    cameras = {path.name.removesuffix(SUFFIX): path for path in sorted(root.rglob(f"*{SUFFIX}"))}
    if len(cameras) < 2:
        raise InputError(f"{root} contains {len(cameras)} files *{SUFFIX}, and two make a pair. Name a scene's folder.")
    paths = {name: sorted(root.rglob(name)) for name in cameras}
    if missing := [name for name, found in paths.items() if not found]:
        raise InputError(
            f"{root} lacks {len(missing)} of {len(cameras)} photographs that have a camera, first {missing[0]}. "
            "Unpack the scene again."
        )
    if several := [name for name, found in paths.items() if len(found) > 1]:
        raise InputError(f"{root} contains {several[0]} more than once. Name the folder of one scene.")
    names = {name: found[0].relative_to(root).as_posix() for name, found in paths.items()}
    known = {names[name]: read_strecha(path) for name, path in cameras.items()}
    tasks = tasks_of(root, [((a, b), PosedTruth.between(known[a], known[b])) for a, b in combinations(known, 2)])
    check_intrinsics(root, tasks)
    return tasks
