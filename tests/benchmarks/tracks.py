"""Quality of tracks compared with samples and votes on the same simulated warps: poses, points, matches, time.

Every seed is a different scene. Intrinsics are known; warps, samples, keypoints, verification and mapping are
determined by the seed.

    python tests/benchmarks/tracks.py --layouts arc-16 --seeds 0 1 2 --json arc.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
import torch
from track_scenes import LAYOUTS, Layout, NoiseModel, View, make_capture
from votes import Result, Samples, draw, keep_private, vote

from romacli.colmap.cameras import CameraSpec
from romacli.colmap.database import write_database
from romacli.colmap.options import VerifyOptions
from romacli.colmap.poses import Pose, read_poses
from romacli.errors import NothingFoundError
from romacli.geometry.epipolar import relative_pose_error
from romacli.keypoints.aggregate import aggregate
from romacli.keypoints.options import AggregateOptions
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import reconstruct
from romacli.matchers.compact import compact
from romacli.types import CompactWarp, DenseMatch, Pair

BAD_PX = 5.0
AUC_LIMITS_DEG = (0.1, 0.3, 1.0)
MATCHES_CHECKED_PER_PAIR = 200


class Captured(Protocol):
    """A photographed scene: its views, its pairs, the matcher's output for a pair, and the truth."""

    views: Sequence[View]
    pairs: Sequence[tuple[int, int]]

    def dense(self, i: int, j: int) -> DenseMatch: ...

    def follow(self, i: int, j: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Sampling:
    """How many correspondences to draw per pair, and which of them to keep."""

    count: int
    min_certainty: float
    max_cycle_px: float = np.inf


# RoMa's own sampling, and the same with the checks that the compact warps have passed.
FREE = Sampling(5_000, 0.05)
SAMPLING = {
    "independent": FREE,
    "cells": FREE,
    "vote-3": Sampling(20_000, 0.2, 3.0),
    "vote-6": Sampling(20_000, 0.2, 6.0),
}
FILTERED_VOTES = ("vote-3", "vote-6")
# The project's own methods, which only get the compact warps.
OF_RECORDS = {"aggregate-cells": "cells", "tracks": "tracks"}
METHODS = (*SAMPLING, *OF_RECORDS)


@dataclass(frozen=True)
class Inputs:
    """The inputs of the methods: for every pair its record, and samples of every kind needed."""

    records: Mapping[Pair, CompactWarp]
    samples: Mapping[Sampling, Mapping[Pair, Samples]]


def gather(capture: Captured, methods: Sequence[str], seed: int) -> Inputs:
    """Match every pair once, and keep what the methods need."""
    kinds = {SAMPLING[method] for method in methods if method in SAMPLING}
    records: dict[Pair, CompactWarp] = {}
    samples: dict[Sampling, dict[Pair, Samples]] = {kind: {} for kind in kinds}
    for i, j in capture.pairs:
        match, pair = capture.dense(i, j), (capture.views[i].name, capture.views[j].name)
        records[pair] = compact(match)
        for kind, drawn in samples.items():
            limits = {"min_certainty": kind.min_certainty, "max_cycle_px": kind.max_cycle_px}
            drawn[pair] = draw(match, kind.count, [seed, i, j], **limits)
    return Inputs(records, samples)


def combine(method: str, inputs: Inputs, options: AggregateOptions) -> Result:
    """Keypoints and matches of all images, by one of the methods; private keypoints have no limit."""
    if method in OF_RECORDS:
        chosen = replace(options, method=OF_RECORDS[method])
        made = aggregate(list(inputs.records), inputs.records.__getitem__, chosen)
        keypoints = {name: points.xy for name, points in made.keypoints.items()}
        return Result(keypoints, {pair: matches.indices for pair, matches in made.matches()})
    samples = inputs.samples[SAMPLING[method]]
    if method == "independent":
        return keep_private(samples)
    return vote(samples, max_keypoints=options.max_keypoints)


def match_quality(capture: Captured, result: Result) -> dict[str, float]:
    """The median true error of matches in px and the share of bad ones, on a sample from every pair."""
    errors = []
    for pair, rows in result.matches.items():
        some = np.linspace(0, len(rows) - 1, min(len(rows), MATCHES_CHECKED_PER_PAIR)).astype(int)
        errors.append(_true_errors(capture, result, pair, rows[some]))
    all_errors = np.concatenate(errors)
    return {"error_px": float(np.median(all_errors)), "bad_share": float((all_errors > BAD_PX).mean())}


def keep_true(capture: Captured, result: Result, limit_px: float) -> Result:
    """The same without matches whose true error exceeds a limit: what a perfect selection would keep."""
    matches = {
        pair: rows[_true_errors(capture, result, pair, rows) < limit_px] for pair, rows in result.matches.items()
    }
    return Result(result.keypoints, matches)


def _true_errors(capture: Captured, result: Result, pair: Pair, rows: np.ndarray) -> np.ndarray:
    """True error in px of each of (n, 2) matches in the second image; infinite where the point is not in view."""
    i, j = ([view.name for view in capture.views].index(name) for name in pair)
    points0, points1 = (result.keypoints[name][rows[:, side]] for side, name in enumerate(pair))
    truth, visible = capture.follow(i, j, points0.astype(np.float64))
    return np.where(visible, np.linalg.norm(truth - points1, axis=1), np.inf)


def map_views(capture: Captured, result: Result, options: MapperOptions) -> tuple[dict[str, Pose], dict[str, float]]:
    """Verify and map with known intrinsics: the poses of the largest model, and its figures."""
    view = capture.views[0]
    camera = CameraSpec("PINHOLE", view.size, (view.focal_px, view.focal_px, *view.middle), "given")
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_database(
            folder / "database.db",
            cameras=[camera],
            camera_of={one.name: 0 for one in capture.views},
            keypoints=result.keypoints,
            matches=result.matches.items(),
            verify=VerifyOptions(num_threads=options.num_threads),
        )
        try:
            made = reconstruct(folder / "database.db", folder, folder / "sparse", options)
        except NothingFoundError:
            return {}, {"points": 0, "track": 0.0, "reprojection_px": float("nan")}
        holds = {
            "points": made.points3D,
            "track": made.mean_track_length,
            "reprojection_px": made.mean_reprojection_error,
        }
        return read_poses(folder / "sparse" / "0"), holds


def pose_quality(views: Sequence[View], poses: Mapping[str, Pose]) -> dict[str, float]:
    """The area under recall over the relative poses of all pairs of views; unregistered images count as wrong."""
    errors = np.array([_relative_error(one, other, poses) for one, other in combinations(views, 2)])
    return {"registered": len(poses)} | {f"auc_{limit:g}": area_under_recall(errors, limit) for limit in AUC_LIMITS_DEG}


def _relative_error(one: View, other: View, poses: Mapping[str, Pose]) -> float:
    if one.name not in poses or other.name not in poses:
        return np.inf
    found = _relative(poses[one.name], poses[other.name])
    truth = _relative(one.pose, other.pose)
    return max(relative_pose_error(*found, true_rotation=truth[0], true_translation=truth[1]))


def _relative(one: Pose, other: Pose) -> tuple[np.ndarray, np.ndarray]:
    rotation = other.rotation @ one.rotation.T
    return rotation, other.translation - rotation @ one.translation


def area_under_recall(errors: np.ndarray, limit: float) -> float:
    """The area under the share of errors below a threshold, for thresholds up to the limit; 100 at best."""
    below = np.sort(errors[errors < limit])
    recall = np.arange(len(below) + 1) / len(errors)
    return float(100 / limit * np.trapezoid([*recall, recall[-1]], [0, *below, limit]))


@dataclass(frozen=True)
class Settings:
    """The configurations to compare: methods, each with every mapper, the number of threads, and keypoint options."""

    methods: Sequence[str]
    mappers: Sequence[Literal["incremental", "global"]]
    threads: int
    options: AggregateOptions
    true_within_px: float | None


def run_seed(
    capture: Captured, settings: Settings, seed: int, others: Mapping[str, Callable[[Captured, int], Result]]
) -> list[dict[str, Any]]:
    """One row of figures for every method and mapper on the same warps."""
    inputs = gather(capture, settings.methods, seed)
    rows = []
    for method in settings.methods:
        start = time.process_time()
        result = others[method](capture, seed) if method in others else combine(method, inputs, settings.options)
        # The time of other code includes simulating and sampling the warps.
        cpu_ms = float("nan") if method in others else 1000 * (time.process_time() - start) / len(capture.pairs)
        if settings.true_within_px is not None:
            result = keep_true(capture, result, settings.true_within_px)
        quality = match_quality(capture, result)
        per_pair = float(np.mean([len(matches) for matches in result.matches.values()]))
        for mapper in settings.mappers:
            options = MapperOptions(mapper=mapper, refine_intrinsics=False, num_threads=settings.threads)
            poses, holds = map_views(capture, result, options)
            figures = pose_quality(capture.views, poses) | holds | quality
            what = {"method": method, "mapper": mapper, "seed": seed, "views": len(capture.views)}
            rows.append(what | figures | {"matches_per_pair": per_pair, "cpu_ms_per_pair": cpu_ms})
    return rows


COLUMNS = {
    "auc_0.1": "{:.1f}",
    "auc_0.3": "{:.1f}",
    "auc_1": "{:.1f}",
    "track": "{:.2f}",
    "points": "{:,.0f}",
    "error_px": "{:.2f}",
    "bad_share": "{:.3f}",
    "reprojection_px": "{:.2f}",
    "matches_per_pair": "{:,.0f}",
    "cpu_ms_per_pair": "{:.0f}",
}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Means over the seeds as a Markdown table, one row for every layout, mapper and method."""
    lines = [
        " | ".join(("| layout", "mapper", "method", "registered", *COLUMNS)) + " |",
        "|---" * (4 + len(COLUMNS)) + "|",
    ]
    for layout, mapper, method in dict.fromkeys((row["layout"], row["mapper"], row["method"]) for row in rows):
        mine = _of(rows, layout, mapper, method)
        registered = ", ".join(f"{row['registered']}/{row['views']}" for row in mine)
        means = [shape.format(np.mean([row[column] for row in mine])) for column, shape in COLUMNS.items()]
        lines.append(" | ".join((f"| {layout}", mapper, method, registered, *means)) + " |")
    return "\n".join(lines)


def differences(rows: Sequence[Mapping[str, Any]], filtered_votes: Sequence[str] = FILTERED_VOTES) -> str:
    """The lead of tracks in AUC@0.1, seed by seed, over the better filtered vote on that seed."""
    lines = []
    for layout, mapper in dict.fromkeys((row["layout"], row["mapper"]) for row in rows):
        found = {method: _of(rows, layout, mapper, method) for method in filtered_votes}
        tracks, votes = _of(rows, layout, mapper, "tracks"), [held for held in found.values() if held]
        if tracks and votes:
            best = np.max([[row["auc_0.1"] for row in held] for held in votes], axis=0)
            ahead = np.array([row["auc_0.1"] for row in tracks]) - best
            by_seed = ", ".join(f"{value:+.1f}" for value in ahead)
            better = " or ".join(method for method, held in found.items() if held)
            lines.append(f"{layout}, {mapper}: tracks ahead of {better} by {ahead.mean():+.1f} ({by_seed})")
    return "\n".join(lines)


def _of(rows: Sequence[Mapping[str, Any]], layout: str, mapper: str, method: str) -> list[Mapping[str, Any]]:
    wanted = (layout, mapper, method)
    return [row for row in rows if (row["layout"], row["mapper"], row["method"]) == wanted]


def main(
    capture_scene: Callable[[Layout, int, NoiseModel, int], Captured],
    other_votes: Mapping[str, Callable[[Captured, int], Result]] = MappingProxyType({}),
) -> None:
    """Run the command line and print tables.

    Args:
        capture_scene: function of layout, seed, noise and nodes.
        other_votes: filtered votes of other code by name, as functions of a capture and a seed.
    """
    parser = argparse.ArgumentParser(description="Compare tracks with samples and votes on simulated warps.")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", choices=(*METHODS, *other_votes), default=list(METHODS))
    parser.add_argument("--mappers", nargs="+", choices=("incremental", "global"), default=["incremental", "global"])
    parser.add_argument("--sigma", type=float, default=1.0, help="error of a good match, px at 1600")
    parser.add_argument("--outliers", type=float, default=0.1, help="share of confidently wrong regions")
    parser.add_argument("--nodes", type=int, default=280, help="side of the dense grid")
    parser.add_argument("--max-keypoints", type=int, default=AggregateOptions().max_keypoints, help="per image")
    for name in ("tolerance", "sweeps", "refinements"):
        default = getattr(AggregateOptions, name)
        parser.add_argument(f"--{name}", type=type(default), default=default, help="option of tracks")
    parser.add_argument("--true-within", type=float, help="px; keep only matches with a true error below this")
    parser.add_argument("--threads", type=int, default=2, help="for verification and mapping")
    parser.add_argument("--json", type=Path, help="file for every row, written after each seed")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    options = AggregateOptions(
        max_keypoints=chosen.max_keypoints,
        tolerance=chosen.tolerance,
        sweeps=chosen.sweeps,
        refinements=chosen.refinements,
    )
    settings = Settings(chosen.methods, chosen.mappers, chosen.threads, options, chosen.true_within)
    noise = NoiseModel(sigma_px=chosen.sigma, outliers=chosen.outliers)
    rows: list[dict[str, Any]] = []
    for layout in chosen.layouts:
        for seed in chosen.seeds:
            capture = capture_scene(LAYOUTS[layout], seed, noise, chosen.nodes)
            new = run_seed(capture, settings, seed, other_votes)
            rows += [{"layout": layout} | row for row in new]
            if chosen.json:
                chosen.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(table(rows))
    print("\n".join(filter(None, (differences(rows), differences(rows, tuple(other_votes))))))


if __name__ == "__main__":
    main(lambda layout, seed, noise, nodes: make_capture(layout, seed, noise=noise, nodes=nodes))
