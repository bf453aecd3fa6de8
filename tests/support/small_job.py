"""A finished job on photographs of a plane, made with the matcher that knows them."""

from __future__ import annotations

from pathlib import Path

from support.plane import PlanePhotographs, photograph_plane

from romacli.images.options import ImageOptions
from romacli.job.job import Job
from romacli.job.matching import run_job
from romacli.job.options import JobOptions
from romacli.job.reaggregate import ReaggregateOptions
from romacli.pairs.exhaustive import exhaustive
from romacli.progress import Progress, Silent
from romacli.refine.options import RefineOptions
from romacli.stop import StopRequest
from romacli.store.layout import Layout
from romacli.types import ImageList, Manifest, Pair, PairList

NAMES = ("a 1.png", "bäume/2.png", "bäume/3.png", "c.png")


def plane_job(
    root: Path,
    names: tuple[str, ...] = NAMES,
    *,
    pairs: tuple[Pair, ...] | None = None,
    listener: Progress | None = None,
    refine: bool = False,
) -> tuple[Layout, PlanePhotographs]:
    """Match photographs under `root`/photos into `root`/job and derive the hloc files."""
    photographs = photograph_plane(root / "photos", list(names))
    layout = Layout(root / "job")
    settings = {"model": "homography", "min_certainty": 0.5, "min_overlap": 0.02, "seed": 0}
    job = Job(
        options=JobOptions(ImageOptions(photographs.root), layout.root),
        layout=layout,
        images=ImageList(photographs.root, names),
        pairs=PairList(pairs) if pairs else exhaustive(names),
        matcher=photographs.matcher,
        manifest=Manifest(settings, "0"),
        keypoints=ReaggregateOptions(refine=RefineOptions(refine=refine)),
    )
    run_job(job, listener or Silent(), StopRequest())
    return layout, photographs
