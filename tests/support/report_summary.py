"""Summaries of jobs that never ran, for the report's tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from support.small_scene import make_scene

from romacli.colmap.reading import Model, ModelCamera
from romacli.report.summary import ImageRow, PairRow, Summary, Tracks


def verified_pair(one: int, other: int, inliers: int = 100) -> PairRow:
    return PairRow(one, other, "verified", 0.5, inliers + 20, inliers)


def summary_of(count: int, pairs: list[PairRow], **changes: Any) -> Summary:
    """A job of `count` images in which every image has 1000 keypoints in tracks."""
    images = []
    for image in range(count):
        mine = [pair for pair in pairs if image in (pair.one, pair.other)]
        matched = sum(pair.state in ("matched", "verified") for pair in mine)
        verified, inliers = sum(pair.state == "verified" for pair in mine), sum(pair.inliers or 0 for pair in mine)
        images.append(ImageRow(f"{image:03}.jpg", len(mine), matched, verified, 1000, 1000, inliers, None, None))
    summary = Summary(
        folder="job",
        version="0",
        made="2000-01-01T00:00:00+00:00",
        settings={"model": "mini"},
        matcher={"name": "mini"},
        keypoint_options={},
        images=tuple(images),
        pairs=tuple(pairs),
        tracks=Tracks(500, 3.0, 4, {2: 200, 4: 300}),
        model=None,
        verified=True,
        groups=(count,),
        checks=(),
        missing=(),
        runs=(),
    )
    return replace(summary, **changes)


def model_of(summary: Summary, *, points: int) -> Model:
    """Random points and a camera for every image."""
    rng = np.random.default_rng(0)
    names = [image.name for image in summary.images]
    return Model(
        xyz=rng.normal(size=(points, 3)).astype(np.float32),
        colours=rng.integers(0, 256, (points, 3), np.uint8),
        errors=np.ones(points, np.float32),
        track_lengths=np.full(points, 5, np.int32),
        poses=dict(zip(names, make_scene(names, points=4, reach=0).poses.values(), strict=True)),
        observations=dict.fromkeys(names, 900),
        cameras=dict.fromkeys(names, ModelCamera("SIMPLE_RADIAL", (640, 480), 700.0)),
    )
