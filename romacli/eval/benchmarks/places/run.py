"""Localize queries: match them with their candidates, lift the matches to 3D, and solve a pose from all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from romacli.colmap.intrinsics import camera_of_model
from romacli.disk import write_whole
from romacli.errors import PartialError, UsageError
from romacli.eval.benchmarks.asked import Sampler
from romacli.eval.benchmarks.benchmark import Task
from romacli.eval.benchmarks.places.evaluation import FOCAL_PX, PlaceEvaluation
from romacli.eval.benchmarks.places.inloc import in_space
from romacli.eval.benchmarks.run import Pass, Record
from romacli.eval.two_view import correspondences
from romacli.localize.pose import Attached, QueryCamera, solve_pose
from romacli.matchers.matcher import DenseMatcher
from romacli.run.match import match_images
from romacli.types import ImageList, Pair, PairList, PairResult
from romacli.words import counted

POSES = "poses.txt"


def evaluate(run: Pass, tasks: Sequence[Task], evaluation: PlaceEvaluation) -> None:
    """Find the poses of all queries missing in the record, and write all poses in the server's format.

    A row of the record is a pose, qw qx qy qz tx ty tz of the camera from the building; empty without a pose.

    Raises:
        UsageError: there is no record file.
        PartialError: some pictures cannot be read; everything else is done.
        Stopped: by a signal; finished poses are in the record.
    """
    needs_folder(run.record)
    waiting = {task.names[0]: task for task in run.record.waiting(tasks)}
    pairs = [(query, name) for query, task in waiting.items() for name in task.truth]
    left = {query: len(task.truth) for query, task in waiting.items()}
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {query: [] for query in waiting}

    def lift(results: Sequence[tuple[Pair, PairResult]]) -> None:
        for (query, cutout), result in results:
            points = correspondences(result)
            places = in_space(run.root, cutout, points.keypoints1) if len(points) else np.zeros((0, 3))
            known = np.isfinite(places).all(1)
            if np.count_nonzero(known) >= evaluation.fewest:
                found[query].append((points.keypoints0[known], places[known]))
            left[query] -= 1
            if not left[query]:
                pose = _pose(waiting[query], found.pop(query), evaluation, run.options.seed)
                run.record.add(waiting[query].names, pose)

    matcher = run.matcher
    asked = Sampler(matcher, points=evaluation.points) if isinstance(matcher, DenseMatcher) else matcher
    images = ImageList(run.root, tuple(dict.fromkeys(name for pair in pairs for name in pair)))
    summary = match_images(
        *(images, PairList(tuple(pairs)), asked, lift, run.options),
        progress=run.progress,
        stop=run.stop,
        title="localizing",
    )
    if summary.failures:
        raise PartialError(
            f"{counted(len(summary.failures), 'picture')} cannot be read, and poses without them would be of another "
            f"benchmark: {next(iter(summary.failures.values()))}"
        )
    write_poses(run.record, tasks)


def _pose(
    task: Task, found: Sequence[tuple[np.ndarray, np.ndarray]], evaluation: PlaceEvaluation, seed: int
) -> list[float]:
    if not found:
        return []
    places, points = (np.concatenate(side).astype(np.float64) for side in zip(*found, strict=True))
    camera = QueryCamera(camera_of_model("SIMPLE_PINHOLE", FOCAL_PX, task.sizes[0]))
    pose = solve_pose(Attached(camera, places, points), max_error_px=evaluation.max_error, seed=seed)
    return [] if pose is None else [*pose.qvec, *pose.tvec]


def needs_folder(record: Record) -> Path:
    """The folder where poses for the server are written.

    Raises:
        UsageError: there is no record file.
    """
    if record.folder is None:
        raise UsageError("this benchmark is judged by its server. Give -o FILE; poses lie in FILE.kept.")
    return record.folder


def write_poses(record: Record, tasks: Sequence[Task]) -> None:
    """Write the poses of all queries that have one in the server's format."""
    folder = needs_folder(record)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{Path(task.names[0]).name} {' '.join(f'{value:.12g}' for value in record.errors[task.names])}\n"
        for task in tasks
        if record.errors[task.names]
    ]
    write_whole(folder / POSES, "".join(lines))
