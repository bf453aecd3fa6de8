"""`romacli reconstruct`: everything from photographs to a COLMAP model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from romacli.cli.console import Console, stopping
from romacli.cli.matching.match import describe, introduce, match_values, raise_failures
from romacli.cli.options import DryRunOptions, TalkOptions, takes
from romacli.errors import UsageError
from romacli.filter.options import FilterOptions
from romacli.job.options import ImportOptions, JobOptions
from romacli.mapping.options import MapperOptions
from romacli.options import Option, Panel
from romacli.words import counted, first_few

if TYPE_CHECKING:
    from romacli.job.job import Job
    from romacli.job.outputs.filter import FilterSummary
    from romacli.job.outputs.folded import FoldSummary
    from romacli.mapping.reconstruct import ReconstructionSummary
    from romacli.report.focal import FocalLength
    from romacli.stop import StopRequest

# Number of focal lengths printed; the result has all of them.
_MOST_TOLD = 3


@dataclass(frozen=True)
class Georeferencing:
    panel: ClassVar[Panel] = Panel.mapping

    georeference: Annotated[
        bool,
        Option(
            "Align the model to the photographs' GPS positions: metres east, north and up of the origin given in "
            "OUT/sparse/0/georeference.json."
        ),
    ] = False


@takes(
    JobOptions,
    ImportOptions,
    MapperOptions,
    FilterOptions,
    Georeferencing,
    DryRunOptions,
    TalkOptions,
    example="romacli reconstruct photos/ -o job --camera-mode single",
)
def reconstruct(
    options: JobOptions,
    importing: ImportOptions,
    mapping: MapperOptions,
    filtering: FilterOptions,
    georeferencing: Georeferencing,
    dry: DryRunOptions,
    talk: TalkOptions,
) -> None:
    """Match photographs, verify the matches and map them with COLMAP into OUT/sparse/0.

    Finished work of earlier runs is reused; run the same command again to resume a stopped job.
    """
    from romacli.colmap.reading import read_model
    from romacli.job.job import listed_images, open_job
    from romacli.job.matching import run_job
    from romacli.job.outputs.cameras import check_early
    from romacli.job.outputs.database import import_matches
    from romacli.job.outputs.folded import left_out_of
    from romacli.job.outputs.model import advice_on, georeference_models, gps_values
    from romacli.mapping.georeference import compare_with_gps
    from romacli.report.focal import focal_lengths

    start, georeference = time.monotonic(), georeferencing.georeference
    _require_consistent(importing, mapping, georeference=georeference)
    importing = replace(importing, known_poses=mapping.known_poses)
    mapping = replace(_mapping(mapping, importing), seed=options.match.seed, verbose=talk.verbose)
    images = options.images.folder
    with stopping(overwrites=options.overwrite) as stop, Console(talk) as console:
        options = replace(options, keypoints=replace(options.keypoints, replaces=True))
        with stop.at_once():
            check_early(listed_images(options), importing, mapping, georeferenced=georeference)
            job = open_job(options, console)
            introduce(job, console)
            if dry.dry_run:
                describe(job, console)
                return
        matched = run_job(job, console, stop)
        import_matches(images, job.layout, importing, console, stop)
        database = importing.database or job.layout.database
        model, filtered, look = _mapped(job, database, mapping, filtering, console, stop)
        if georeference:
            georeference_models(job.layout, database, console)
        fit = compare_with_gps(job.layout.model, database)
        focal = focal_lengths(job.layout, database, read_model(job.layout.model))
        for told in focal[:_MOST_TOLD]:
            console.say(str(told))
        for sentence in advice_on(job.layout, database, job.images.names, fit, left_out_of(job.layout)):
            console.warn(sentence)
        values = {
            **match_values(matched),
            **_model_values(model, focal),
            **{key: asdict(told) if told else None for key, told in (("filtered", filtered), ("look", look))},
            "gps": gps_values(fit) if fit else None,
            "seconds": round(time.monotonic() - start, 3),
        }
        gps = f". GPS: {fit}" if fit else ""
        console.result(values, f"{_sentence(model, job, filtered)}{gps}")
        raise_failures(matched, job.layout)


def _mapping(mapping: MapperOptions, importing: ImportOptions) -> MapperOptions:
    """Refine intrinsics by default, unless they or the poses are given."""
    if mapping.refine_intrinsics is not None:
        return mapping
    return replace(mapping, refine_intrinsics=not importing.cameras.are_given and mapping.known_poses is None)


def _mapped(
    job: Job,
    database: Path,
    options: MapperOptions,
    filtering: FilterOptions,
    console: Console,
    stop: StopRequest,
) -> tuple[ReconstructionSummary, FilterSummary | None, FoldSummary | None]:
    """The model, and if pairs are filtered, what was found of them and of the model."""
    from romacli.job.outputs.filter import filter_for_mapper, make_filtered_model
    from romacli.job.outputs.folded import look_after

    is_filtered = filtering.filter and options.known_poses is None
    filtered = filter_for_mapper(job.layout, database, console, stop) if is_filtered else None
    model = make_filtered_model(job.images.root, job.layout, database, options, filtered, console, stop)
    for sentence in model.warnings:
        console.warn(sentence)
    if filtered is None:
        return model, None, None
    model, found = look_after(job.layout, model, console, stop)
    for sentence in found.warnings:
        console.warn(sentence)
    return model, filtered, found


def _model_values(model: ReconstructionSummary, focal: Sequence[FocalLength]) -> dict[str, Any]:
    return {
        "models": model.models,
        "registered": model.registered,
        "points3D": model.points3D,
        "mean_track_length": round(model.mean_track_length, 3),
        "mean_reprojection_error": round(model.mean_reprojection_error, 4),
        "attempts": model.attempts,
        "left_out": (*model.left_out, *model.at_odds),
        "focal_lengths": [asdict(told) for told in focal],
    }


def _sentence(model: ReconstructionSummary, job: Job, filtered: FilterSummary | None) -> str:
    without = len(filtered.without) if filtered else 0
    doubted = f". {counted(without, 'doubted pair')} left out" if without else ""
    tried = f". Mappers: {', then '.join(model.attempts)}" if len(model.attempts) > 1 else ""
    smaller = [f"{job.layout.sparse / str(number)} of {size}" for number, size in enumerate(model.others, start=1)]
    others = f" (and {counted(len(smaller), 'smaller model')}: {first_few(smaller)} images)" if smaller else ""
    return (
        f"{model.registered} of {counted(len(job.images), 'image')} registered, {counted(model.points3D, 'point')}, "
        f"mean track length {model.mean_track_length:.2f}, mean reprojection error "
        f"{model.mean_reprojection_error:.2f} px; see {job.layout.model}{others}{tried}{doubted}"
    )


def _require_consistent(importing: ImportOptions, mapping: MapperOptions, *, georeference: bool) -> None:
    """Raise UsageError if options contradict each other."""
    if mapping.known_poses is None:
        return
    for option, is_given in (
        ("--mapper", mapping.mapper is not MapperOptions.mapper),
        ("--rig-config", importing.cameras.rigs is not None),
        ("--camera-params", importing.cameras.params is not None),
    ):
        if is_given:
            raise UsageError(f"--known-poses takes cameras and poses from the model; leave out {option}.")
    if georeference:
        raise UsageError("--known-poses keeps the given poses, --georeference moves them. Leave one out.")
