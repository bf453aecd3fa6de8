"""Localize the queries of a city like `romacli localize`, with the benchmark's pairs, cameras and threshold."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path

from romacli.disk import read_lines
from romacli.errors import NothingFoundError
from romacli.eval.benchmarks.benchmark import Task
from romacli.eval.benchmarks.places.aachen import IMAGES, PAIRS, QUERIES, read_map
from romacli.eval.benchmarks.places.evaluation import CityEvaluation
from romacli.eval.benchmarks.places.run import needs_folder, write_poses
from romacli.eval.benchmarks.run import Pass
from romacli.localize.localize import Localizer
from romacli.localize.options import LocalizeOptions


def evaluate(run: Pass, tasks: Sequence[Task], evaluation: CityEvaluation) -> None:
    """Find the poses of all queries missing in the record, and write all poses in the server's format.

    Raises:
        UsageError: there is no record file, or the matcher returns points.
        InputError: the model is damaged.
        Stopped: by a signal; matches are kept.
    """
    folder = needs_folder(run.record)
    waiting = run.record.waiting(tasks)
    if waiting:
        target = read_map(run.root)
        queries, pairs = _asked(run.root, folder, {task.names[0] for task in waiting}, target.files.keys())
        wanted = LocalizeOptions(
            pairs=pairs,
            query_list=queries,
            max_error=evaluation.max_error,
            min_inliers=evaluation.min_inliers,
            min_inlier_ratio=0.0,
        )
        try:
            localizer = Localizer(
                target, folder / "localized", run.matcher, wanted, run.options, run.progress, run.stop
            )
            found = localizer.localize(run.root / IMAGES)
        except NothingFoundError:
            found = []
        poses = {one.name: one.pose for one in found if one.pose}
        for task in waiting:
            pose = poses.get(task.names[0])
            run.record.add(task.names, [*pose.qvec, *pose.tvec] if pose else [])
    write_poses(run.record, tasks)


def _asked(root: Path, folder: Path, names: Set[str], known: Set[str]) -> tuple[Path, Path]:
    """Lists of these queries only, and of their pairs with pictures of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    lists = {"queries.txt": QUERIES.values(), "pairs.txt": (PAIRS,)}
    for file, sources in lists.items():
        rows = [line.split() for source in sources for _, line in read_lines(root / source, "the published list")]
        kept = [row for row in rows if row[0] in names and (file == "queries.txt" or row[-1] in known)]
        (folder / file).write_text("".join(f"{' '.join(row)}\n" for row in kept), encoding="utf-8")
    return folder / "queries.txt", folder / "pairs.txt"
