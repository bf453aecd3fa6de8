"""`romacli reconstruct`: everything from photographs to a COLMAP model."""

from __future__ import annotations

import time
from typing import Any

import typer

from romacli.cli.console import Console, stopping
from romacli.cli.match import describe, introduce, match_values, raise_failures
from romacli.cli.options import (
    DryRunFlags,
    EngineFlags,
    ImageFlags,
    ImportFlags,
    KeypointFlags,
    MapperFlags,
    MaskFlags,
    MatchFlags,
    OutputFlags,
    TalkFlags,
    takes,
)
from romacli.cli.pairing import PairingFlags
from romacli.cli.request import import_options, job_options, mapper_options
from romacli.words import counted


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: romacli reconstruct photos/ -o job --camera-mode single")(reconstruct)


@takes(
    ImageFlags,
    OutputFlags,
    MatchFlags,
    PairingFlags,
    KeypointFlags,
    MaskFlags,
    EngineFlags,
    ImportFlags,
    MapperFlags,
    DryRunFlags,
    TalkFlags,
)
def reconstruct(
    images: ImageFlags,
    output: OutputFlags,
    flags: MatchFlags,
    pairing: Any,
    keypoints: KeypointFlags,
    masks: MaskFlags,
    engine: EngineFlags,
    imported: ImportFlags,
    mapper: MapperFlags,
    dry: DryRunFlags,
    talk: TalkFlags,
) -> None:
    """Match photographs, verify the matches and map them with COLMAP into OUT/sparse/0.

    What an earlier run finished is used again; the same command continues a job that was stopped.
    """
    from romacli.colmap.georeference import compare_with_gps
    from romacli.job.colmap import advice_on, check_early, import_matches, make_model
    from romacli.job.georeference import georeference_models, gps_values
    from romacli.job.job import listed, open_job, run_job

    start = time.monotonic()
    mapping = mapper_options(mapper, imported, talk, seed=flags.seed)
    importing = import_options(imported, known_poses=mapper.known_poses)
    with stopping() as stop, Console(quiet=talk.quiet, verbose=talk.verbose) as console:
        with stop.at_once():
            options = job_options(images, output, flags, pairing, keypoints, masks, engine)
            check_early(listed(options), importing, mapping, georeferenced=mapper.georeference)
            job = open_job(options, console)
            introduce(job, console)
            if dry.dry_run:
                describe(job, console, as_json=talk.as_json)
                return
        matched = run_job(job, console, stop)
        import_matches(images.folder, job.layout, importing, console, stop)
        database = importing.database or job.layout.database
        model = make_model(images.folder, job.layout, database, mapping, console, stop)
        if mapper.georeference:
            georeference_models(job.layout, database, console)
        fit = compare_with_gps(job.layout.sparse / "0", database)
        for sentence in advice_on(job.layout, database, job.images.names, fit):
            console.warn(sentence)
        values = {
            **match_values(matched),
            "models": model.models,
            "registered": model.registered,
            "points3D": model.points3D,
            "mean_track_length": round(model.mean_track_length, 3),
            "mean_reprojection_error": round(model.mean_reprojection_error, 4),
            "gps": gps_values(fit) if fit else None,
            "seconds": round(time.monotonic() - start, 3),
        }
        counts = " and ".join(map(str, model.others))
        others = (
            f" ({counted(len(model.others), 'smaller model')} beside it, of {counts} images)" if model.others else ""
        )
        console.result(
            values,
            f"{model.registered} of {counted(len(job.images), 'image')} registered, "
            f"{counted(model.points3D, 'point')}, mean track length "
            f"{model.mean_track_length:.2f}, mean reprojection error {model.mean_reprojection_error:.2f} px; "
            f"see {job.layout.sparse / '0'}{others}{f'. GPS: {fit}' if fit else ''}",
            as_json=talk.as_json,
        )
        raise_failures(matched, job.layout)
