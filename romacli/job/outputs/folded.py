"""Check a finished model for parts that look alike and are folded onto each other, and take images out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.poses import load_model
from romacli.filter.folds import Fold, find_fold
from romacli.filter.lattice import Views
from romacli.filter.placed import Sight, compare
from romacli.job.hold import hold_job
from romacli.job.outputs.filter import FILTER, FilterSummary, filter_pairs, read_views
from romacli.job.outputs.model import MODEL, database_of_model
from romacli.job.outputs.origins import digest, holds, holds_if_from, origin_of, remember, sources_of
from romacli.mapping.cameras import read_cameras
from romacli.mapping.reconstruct import ReconstructionSummary, take_out
from romacli.progress import Progress
from romacli.stop import StopRequest
from romacli.store.layout import Layout, model_folders
from romacli.store.manifest import read_manifest
from romacli.types import Pair
from romacli.words import counted, first_few

FOLD = "look"
_VERSION = 1
# A model is left as it is if fewer images than this would remain.
_SMALLEST_MODEL = 3


@dataclass(frozen=True)
class FoldSummary:
    """The result of the check.

    seams: trusted pairs that the model contradicts. left_out: images taken out, as matches contradict their poses.
    """

    seams: tuple[Pair, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """Sentences on the contradictions and their consequences."""
        found = []
        if self.seams:
            pairs = [" ".join(pair) for pair in self.seams]
            found.append(
                f"the model lays places that look alike onto each other: it contradicts {counted(len(pairs), 'pair')} "
                f"that match, {first_few(pairs)}. Where nothing tells the places apart it is ambiguous; photograph "
                "what distinguishes them, and how one leads to the other"
            )
        if self.left_out:
            found.append(
                f"matches contradict where the model had {counted(len(self.left_out), 'image')}, now left out of it: "
                f"{first_few(self.left_out)}"
            )
        return found


def look_after(
    layout: Layout, model: ReconstructionSummary, progress: Progress, stop: StopRequest
) -> tuple[ReconstructionSummary, FoldSummary]:
    """Take out of a job's models the images whose matches contradict their poses, unless that is done already.

    Raises:
        InputError, NothingFoundError: as `filter_pairs` says.
    """
    known = holds_if_from(layout, FOLD, _sources(layout))
    if known is not None and model.registered == known["registered"]:
        return model, _summary_of(known)
    filtered = filter_pairs(layout, progress, stop, database=database_of_model(layout))
    with hold_job(layout, progress, stop), stop.at_once():
        views = read_views(layout, with_photographs=False)
        folds = _look(layout.sparse, views, filtered)
        seams = {views.pair_of(edge) for fold in folds for edge in fold.seams}
        torn = [fold.blocks for fold in folds if len(fold.blocks[0]) >= _SMALLEST_MODEL]
        astray = {views.names[image] for blocks in torn for part in blocks[1:] for image in part}
        if astray:
            model, astray = take_out(layout.sparse, astray, model)
            remember(layout, MODEL, origin_of(layout, MODEL), asdict(model), sources=sources_of(layout, MODEL))
        found = FoldSummary(tuple(sorted(seams)), tuple(sorted(astray)))
        remember(layout, FOLD, _sources(layout), {**asdict(found), "registered": model.registered})
    return model, found


def noted_fold(layout: Layout) -> FoldSummary | None:
    """The result of the check of a job's model; None if it was not checked since it was made."""
    known = holds_if_from(layout, FOLD, _sources(layout))
    return _summary_of(known) if known else None


def left_out_of(layout: Layout) -> tuple[str, ...]:
    """The images of a job that had a place in a model and were left out of it, as it was made or by the check."""
    made, fold = holds(read_manifest(layout.manifest), MODEL), noted_fold(layout)
    return (*made.get("left_out", ()), *made.get("at_odds", ()), *(fold.left_out if fold else ()))


def _sources(layout: Layout) -> str:
    return digest([_VERSION, origin_of(layout, MODEL), origin_of(layout, FILTER)])


def _summary_of(known: Mapping[str, Any]) -> FoldSummary:
    return FoldSummary(tuple((one, other) for one, other in known["seams"]), tuple(known["left_out"]))


def _look(sparse: Path, views: Views, filtered: FilterSummary) -> list[Fold]:
    """The folds of the models in a folder."""
    shown = {(one, other): places for one, other, places in filtered.unique}
    pairs = {edge: views.pair_of(edge) for edge in views.edges}
    unique = {edge: shown.get(pair, 0.0) for edge, pair in pairs.items() if pair not in filtered.without}
    folds = (find_fold(unique, compare(views, _sights(folder, views))) for folder in model_folders(sparse))
    return [fold for fold in folds if fold.seams]


def _sights(folder: Path, views: Views) -> dict[int, Sight]:
    """The images of a model that have a warp, by their numbers in the views."""
    model, number = load_model(folder), {name: k for k, name in enumerate(views.names)}
    found = {}
    for camera in read_cameras(folder):
        seen = [point for point in model.images[camera.number].points2D if point.has_point3D()]
        if camera.name in number and seen:
            points = np.array([model.points3D[point.point3D_id].xyz for point in seen])
            places = np.array([point.xy for point in seen])
            found[number[camera.name]] = Sight(camera.size, places, points, camera.project)
    return found
