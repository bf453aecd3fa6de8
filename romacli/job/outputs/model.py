"""Map a verified database, unless the model there was made from the same."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.numbers import read_numbers
from romacli.colmap.poses import load_model, read_poses
from romacli.colmap.reading import Model, read_focal_lengths, read_inliers, read_model, rows_digest
from romacli.disk import put_back
from romacli.errors import InputError, NothingFoundError
from romacli.job.diagnosis import advice, placed_of
from romacli.job.hold import hold_job
from romacli.job.outputs.hloc import triangle_agreement
from romacli.job.outputs.origins import digest, file_digest, holds, holds_if_from, noted_path, remember, sources_of
from romacli.job.outputs.recipe import noted_calibrations, noted_databases
from romacli.mapping.georeference import GpsFit, georeference
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import (
    COLMAP_FILES,
    ReconstructionSummary,
    extend_model,
    read_content,
    reconstruct,
    summarise,
)
from romacli.progress import Progress
from romacli.stop import StopRequest
from romacli.store.history import noted
from romacli.store.layout import Layout, model_folders
from romacli.store.manifest import read_manifest
from romacli.types import Pair

MODEL = "sparse"
CLOUD = "cloud"
DEPTH_MAPS = "depth maps"
# Changes with what is withheld besides pairs, so that earlier models are not taken for the same.
_WITHHELD = 1
# A mapper that refines focal lengths moves them farther than this.
UNCHANGED_PX = 1e-6


def make_model(
    images: Path,
    layout: Layout,
    database: Path,
    options: MapperOptions,
    progress: Progress,
    stop: StopRequest,
    *,
    without: Collection[Pair] = (),
    contradicted: Callable[[], Mapping[Pair, np.ndarray]] = dict,
) -> ReconstructionSummary:
    """Map the database into `sparse/`, unless the model there was made from the same with the same options.

    without: pairs withheld from the mapper, names ascending. contradicted: computes which inliers (M,) of other pairs
    are withheld, too; they follow from the database and `without`.

    Raises:
        NothingFoundError: no pair is verified, or mapping failed.
    """
    chosen = replace(options, verbose=False, known_poses=None)
    sources = [noted_path(layout, database), rows_of(database)]
    asked = [sources[1], repr(chosen), model_digests(options.known_poses)]
    derived_from = digest([*asked, *([sorted(without), _WITHHELD] if without else ())])
    known = holds_if_from(layout, MODEL, derived_from)
    put_back(layout.sparse)
    if layout.model.exists() and known is not None:
        if (damaged := damaged_model(layout)) is None:
            progress.say(f"{layout.model} is up to date")
            return _summary_of(known)
        progress.say(f"{damaged} is damaged and rebuilt")
    with (
        hold_job(layout, progress, stop),
        noted(layout, "mapping", images=images) as counts,
        stop.at_once(),
    ):
        progress.begin("mapping", read_content(database).images)
        summary = reconstruct(
            database,
            images,
            layout.sparse,
            options,
            without=without,
            contradicted=contradicted(),
            progress=progress.advance,
        )
        counts.update(images=summary.registered)
        remember(layout, MODEL, derived_from, asdict(summary), sources=sources)
    return summary


def damaged_model(layout: Layout) -> Path | None:
    """The first of a job's models that cannot be read."""
    for folder in model_folders(layout.sparse):
        try:
            load_model(folder)
        except InputError:
            return folder
    return None


def extend_mapped(
    images: Path,
    layout: Layout,
    database: Path,
    names: Collection[str],
    options: MapperOptions,
    progress: Progress,
    stop: StopRequest,
    *,
    adjusts_all: bool,
) -> tuple[list[str], ReconstructionSummary]:
    """Add photographs of the database to a job's model; the names of those added, and that model.

    Raises:
        InputError, NothingFoundError: as `extend_model` says.
    """
    before = holds(read_manifest(layout.manifest), MODEL)
    with (
        hold_job(layout, progress, stop),
        noted(layout, "registering", images=images) as counts,
        stop.at_once(),
    ):
        progress.begin("registering", len(names))
        added, model = extend_model(database, images, layout.model, names, options, adjusts_all=adjusts_all)
        counts.update(images=len(added))
        out = {key: [name for name in before.get(key, ()) if name not in added] for key in ("left_out", "at_odds")}
        attempts, models = tuple(before.get("attempts", ())), before.get("models", 1)
        grown = summarise([model], read_content(database).images, attempts, *map(tuple, out.values()))
        others = list(before.get("others", ()))
        if layout.number:  # the record is that of the largest model, with the sizes of the others
            others[layout.number - 1 : layout.number] = [grown.registered]
            held = {**before, **out, "others": others} if before else {}
        else:
            held = asdict(replace(grown, others=tuple(others), models=models))
        sources = [noted_path(layout, database), rows_of(database)]
        remember(layout, MODEL, digest(["registered", *sources]), held, sources=sources)
    return added, replace(grown, others=tuple(others), models=models)


def database_of_model(layout: Layout) -> Path:
    """The database that the model of a job was made from."""
    name, _ = sources_of(layout, MODEL) or (layout.database.name, None)
    return layout.root / name


def database_of_job(layout: Layout) -> Path:
    """The database that the model was made from; if it is gone, another of the job's."""
    found = (path for path in (database_of_model(layout), *noted_databases(layout)) if path.exists())
    return next(found, layout.database)


def imported(database: Path, names: Sequence[str]) -> list[str]:
    """The images that a mapper can register: no unreadable photographs, none without a known pose."""
    held = read_numbers(database, names).images
    return [name for name in names if name in held]


def advice_on(
    layout: Layout, database: Path, names: Sequence[str], gps: GpsFit | None, left_out: Collection[str] = ()
) -> list[str]:
    """Doubts about the largest model of a job, each with advice.

    names: of all images; left_out: of those that had a place in a model and were left out on purpose.
    """
    manifest, model = read_manifest(layout.manifest), read_model(layout.model)
    placed = placed_of(
        model,
        imported(database, names),
        read_inliers(database),
        gps=gps,
        agreement=triangle_agreement(manifest) if manifest else None,
        guessed=guessed_images(layout, database, model),
        shares_camera=shares_camera(database),
        left_out=left_out,
        elsewhere=images_elsewhere(layout),
    )
    return advice(placed)


def images_elsewhere(layout: Layout) -> list[str]:
    """The names of the images in a job's models other than the one that is used.

    Raises:
        InputError: a model is damaged.
    """
    others = [folder for folder in model_folders(layout.sparse) if folder != layout.model]
    return [name for folder in others for name in read_poses(folder)]


def guessed_images(layout: Layout, database: Path, model: Model) -> tuple[str, ...]:
    """The images of a model whose focal length is still the guess of the database it was made from, by name."""
    start = read_focal_lengths(database)
    known = {number for number, (_, is_prior) in start.items() if is_prior}
    known |= {told.camera for told in noted_calibrations(layout, database)}
    return tuple(
        name
        for name, camera in sorted(model.cameras.items())
        if camera.number in start.keys() - known
        and abs(camera.focal_length_px - start[camera.number][0]) < UNCHANGED_PX
    )


def shares_camera(database: Path) -> bool:
    """Whether all images of a database share a camera."""
    return len(read_focal_lengths(database)) == 1


def georeference_models(layout: Layout, database: Path, progress: Progress) -> None:
    """Align the models of a job to the GPS positions of their photographs; reports smaller ones that cannot be aligned.

    Raises:
        NothingFoundError: the largest cannot be aligned.
    """
    for folder in model_folders(layout.sparse):
        try:
            georeference(folder, database)
        except NothingFoundError as error:
            if folder.name == "0":
                raise
            progress.warn(str(error))


def gps_values(fit: GpsFit) -> dict[str, Any]:
    """A fit to GPS positions as JSON values."""
    return {
        "images": len(fit.residuals_m),
        "median_m": round(fit.median_m, 3),
        "largest_m": round(fit.largest_m, 3),
        "largest_image": fit.worst,
        "extent_m": round(fit.extent_m, 3),
    }


def mapper_messages(layout: Layout) -> tuple[str, ...]:
    """The messages of each mapper that ran when the model was made."""
    return tuple(holds(read_manifest(layout.manifest), MODEL).get("attempts", ()))


def model_warnings(layout: Layout) -> list[str]:
    """The warnings from making the model."""
    known = holds(read_manifest(layout.manifest), MODEL)
    return _summary_of(known).warnings if known else []


def _summary_of(known: Mapping[str, Any]) -> ReconstructionSummary:
    tuples = {key: tuple(known.get(key, ())) for key in ("others", "attempts", "left_out", "at_odds")}
    return ReconstructionSummary(**{**known, **tuples})


def dense_output(layout: Layout, output: str) -> str:
    """The name that the cloud or the depth maps of a layout's model are recorded under."""
    return f"{output} {layout.number}" if layout.number else output


def model_digests(folder: Path | None) -> Any:
    """The names and digests of a model's files, as JSON values."""
    if folder is None:
        return None
    return [[path.name, file_digest(path)] for path in sorted(folder.iterdir()) if path.name in COLMAP_FILES]


def rows_of(database: Path) -> str | None:
    """The digest of a database, None if it does not exist."""
    return rows_digest(database) if database.is_file() else None
