"""Evaluate scenes: each is matched once, then a model of every subset of its photographs is built and evaluated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from romacli.colmap.cameras import CameraSpec, ImageInfo, assign_cameras
from romacli.colmap.database import write_database
from romacli.colmap.options import CameraMode, CameraOptions, VerifyOptions
from romacli.colmap.poses import load_model, read_poses
from romacli.errors import NothingFoundError, PartialError
from romacli.eval.benchmarks.benchmark import Task
from romacli.eval.benchmarks.run import Pass
from romacli.eval.benchmarks.scenes.beams import accuracy, completeness
from romacli.eval.benchmarks.scenes.scans import scans_of
from romacli.eval.benchmarks.scenes.scene import Scene, SceneEvaluation, Subset
from romacli.eval.cloud import read_reference
from romacli.eval.model_poses import pair_error
from romacli.keypoints.aggregate import Aggregation, aggregate
from romacli.keypoints.options import AggregateOptions
from romacli.keypoints.points import by_points
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import reconstruct
from romacli.pairing.kept import match_kept
from romacli.progress import Silent
from romacli.store.journal import Journal
from romacli.types import ImageList, Pair, PairList, Size
from romacli.words import counted

TOLERANCES = (0.01, 0.02, 0.05)
_SMALLEST_MODEL = 3


def evaluate(run: Pass, tasks: Sequence[Task], evaluation: SceneEvaluation) -> None:
    """Evaluate all subsets missing in the record. Matches are kept next to the record, and reused.

    Raises:
        PartialError: some photographs cannot be read; the others are not evaluated.
        Stopped: by a signal; finished subsets are in the record.
    """
    scenes: dict[str, list[Task]] = {}
    for task in run.record.waiting(tasks):
        scenes.setdefault(task.names[0], []).append(task)
    with ExitStack() as stack:
        kept = run.record.folder or Path(stack.enter_context(TemporaryDirectory()))
        for name, group in scenes.items():
            scene: Scene = group[0].truth.scene
            pairs = dict.fromkeys(pair for task in group for pair in combinations(sorted(task.truth.names), 2))
            names = tuple(dict.fromkeys(one for pair in pairs for one in pair))
            journal, summary = match_kept(
                *(kept / name, ImageList(scene.images, names), PairList(tuple(pairs))),
                *(run.matcher, run.options, run.progress),
                settings={"seed": run.options.seed},
                stop=run.stop,
                title=f"matching {name}",
            )
            with journal:
                if summary.failures:
                    raise PartialError(
                        f"{counted(len(summary.failures), 'photograph')} of {name} cannot be read, and figures of the "
                        f"others would be of another benchmark: {next(iter(summary.failures.values()))}"
                    )
                run.progress.begin(f"reconstructing {name}", len(group))
                for task in group:
                    run.stop.check()
                    model = kept / name / "model"
                    run.record.add(task.names, _judge(task.truth, journal, evaluation, model, run.options.seed))
                    run.progress.advance()


def _judge(subset: Subset, journal: Journal, evaluation: SceneEvaluation, folder: Path, seed: int) -> list[float]:
    """Errors of all pairs of photographs in deg, or accuracy and completeness at each tolerance."""
    model = _reconstructed(subset, journal, evaluation, folder, seed)
    truth = {name: subset.scene.poses[name] for name in subset.names}
    if evaluation.asks == "poses":
        poses = read_poses(model) if model else {}
        return [pair_error(poses, truth, pair) for pair in combinations(sorted(truth), 2)]
    if model is None:
        return [0.0] * (2 * len(TOLERANCES))
    assert subset.scene.scans is not None
    points = np.array([point.xyz for point in load_model(model).points3D.values()])
    scans = [(read_reference(path), place) for path, place in scans_of(subset.scene.scans)]
    reference = np.concatenate([xyz @ place[:3, :3].T + place[:3, 3] for xyz, place in scans])
    return accuracy(points, scans, TOLERANCES) + completeness(points, reference, TOLERANCES)


def _reconstructed(
    subset: Subset, journal: Journal, evaluation: SceneEvaluation, folder: Path, seed: int
) -> Path | None:
    """The folder of the largest model; None if there is none."""
    scene, names = subset.scene, sorted(subset.names)
    pairs = [pair for pair in combinations(names, 2) if journal.kind(pair) != "rejected"]
    scales = {name: evaluation.px / max(scene.sizes[name]) for name in names}
    sizes = {name: _scaled_size(scene.sizes[name], scales[name]) for name in names}
    cameras, camera_of = _cameras(scene, evaluation, scales, sizes)
    aggregation = _aggregated(journal, pairs)
    keypoints = {name: scales[name] * found.xy for name, found in aggregation.keypoints.items() if name in scales}
    folder.mkdir(parents=True, exist_ok=True)
    database, sparse = folder / "database.db", folder / "sparse"
    database.unlink(missing_ok=True)
    is_known = evaluation.cameras == "known"
    options = MapperOptions(
        refine_intrinsics=not is_known,
        min_model_size=_SMALLEST_MODEL,
        known_poses=scene.model if evaluation.asks == "points" else None,
        seed=seed,
    )
    try:
        write_database(
            database,
            cameras=cameras,
            camera_of=camera_of,
            keypoints=keypoints,
            matches=((pair, aggregation.matches_of(pair).indices) for pair in pairs),
            verify=VerifyOptions(max_error_px=evaluation.max_error),
            calibrate=not is_known,
        )
        reconstruct(database, scene.images, sparse, options)
    except NothingFoundError:
        return None
    return sparse / "0"


def _aggregated(journal: Journal, pairs: Sequence[Pair]) -> Aggregation:
    """Tracks from the warps of a dense matcher, or the merged points of a keypoint matcher."""
    if any(journal.kind(pair) == "correspondences" for pair in pairs):
        return by_points(pairs, journal.points, Silent())
    return aggregate(pairs, journal.warp, AggregateOptions())


def _cameras(
    scene: Scene, evaluation: SceneEvaluation, scales: Mapping[str, float], sizes: Mapping[str, Size]
) -> tuple[list[CameraSpec], dict[str, int]]:
    if evaluation.cameras != "known":
        mode = CameraMode.auto if evaluation.cameras == "shared" else CameraMode.per_image
        return assign_cameras([ImageInfo(name, size) for name, size in sizes.items()], CameraOptions(mode=mode))
    cameras = []
    for name, size in sizes.items():
        K = scales[name] * scene.intrinsics[name]
        cameras.append(CameraSpec("PINHOLE", size, (K[0, 0], K[1, 1], K[0, 2], K[1, 2]), "given"))
    return cameras, {name: index for index, name in enumerate(sizes)}


def _scaled_size(size: Size, scale: float) -> Size:
    return math.ceil(size[0] * scale), math.ceil(size[1] * scale)
