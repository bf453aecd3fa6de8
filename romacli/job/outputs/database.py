"""Build a job's verified COLMAP database from its hloc files, unless it is up to date."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.cameras import ImageInfo
from romacli.colmap.database import DatabaseSummary, check_replaceable, write_database
from romacli.colmap.numbers import read_numbers
from romacli.errors import BusyError, InputError, StoreError
from romacli.geometry.globe import Position
from romacli.images.listing import files_under
from romacli.job.hold import hold_job
from romacli.job.options import ImportOptions
from romacli.job.outputs.cameras import choose_cameras, known_image, loose_images
from romacli.job.outputs.model import model_digests
from romacli.job.outputs.origins import digest, file_digest, holds_if_from, remember
from romacli.job.outputs.recipe import calibrations, database_output, recipe
from romacli.mapping.reconstruct import read_content
from romacli.names import respelled
from romacli.pairing.gps import believed
from romacli.progress import Progress
from romacli.run.photographs import look_at, named_as_changed, note_photographs, require_size
from romacli.stop import StopRequest
from romacli.store.history import noted
from romacli.store.hloc import UNREAD, FeaturesFile, MatchesFile, ReadFile
from romacli.store.images import read_images
from romacli.store.layout import Layout
from romacli.types import ImageList, Pair, Size
from romacli.words import counted, first_few

FEWEST_PAIRS_PER_KEYPOINT = 1.2
_ENOUGH_SURE = 0.5
_SENTENCES = ("failed", "separated", "mixed", "odd", "contradicted")


def import_matches(
    images: Path, layout: Layout, options: ImportOptions, progress: Progress, stop: StopRequest
) -> DatabaseSummary:
    """Verify the matches of a job and write its COLMAP database, unless that is up to date.

    Raises:
        BusyError: another process is at work in the folder.
        InputError: the folder contains no matches, or a photograph is gone or has changed its size.
        StoreError: the database was not made by romacli, or is damaged.
    """
    for file in (layout.features, layout.matches):
        if not file.exists():
            raise InputError(f"{layout.root} contains no {file.name}. Run `romacli match` with this --output first.")
    with hold_job(layout, progress, stop):
        return _import_matches(images, layout, options, progress, stop)


def _import_matches(
    images: Path, layout: Layout, options: ImportOptions, progress: Progress, stop: StopRequest
) -> DatabaseSummary:
    database = options.database or layout.database
    output, derived_from = database_output(layout, database), _database_digest(layout, options)
    before = holds_if_from(layout, output, derived_from)
    with stop.at_once():
        _look_at_photographs(images, layout, options, progress)
    if database.exists() and before is not None:
        return _up_to_date(database, before, progress)
    check_replaceable(database, overwrite=options.overwrite)
    with (
        FeaturesFile(layout.features) as features,
        MatchesFile(layout.matches) as matches,
        noted(layout, "verifying", images=images) as counts,
        stop.at_once(),
    ):
        _require_one_origin(layout, features, matches)
        held_as = _in_folder(images, features.names())
        named = {held: name for name, held in held_as.items()}
        sizes = _matched_sizes(features, held_as, options, progress)
        infos = [_info(images, name, size) for name, size in sizes.items()]
        cameras, camera_of = choose_cameras(infos, options, progress)
        pairs = [pair for pair in matches.pairs(named) if camera_of.keys() >= {named[name] for name in pair}]
        gps = _priors([info for info in infos if info.name in camera_of], progress)
        if gps:
            progress.say(f"GPS positions of {len(gps)} of {len(camera_of)} photographs are kept as pose priors")
        _tell_of_growth(database, camera_of, progress)
        progress.begin("verifying", len(pairs))
        summary = write_database(
            database,
            cameras=cameras,
            camera_of=camera_of,
            keypoints={name: features.keypoints(held_as[name]).xy for name in camera_of},
            matches=_with_matches(pairs, named, matches, progress),
            verify=options.verify,
            gps=gps,
            rigs=options.cameras.rigs,
            overwrite=options.overwrite,
            calibrate=_is_calibrated(options),
            loose=loose_images(infos, camera_of, options.cameras),
            expected_bytes=_expected_bytes(layout),
            sure=_sure(features, held_as),
            progress=lambda _: progress.advance(),
        )
        counts.update(pairs=summary.pairs)
    for calibration in summary.calibrated:
        progress.say(str(calibration))
    _tell(summary, progress)
    if summary.pairs and summary.pairs_per_keypoint < FEWEST_PAIRS_PER_KEYPOINT:
        progress.warn(
            f"keypoints are shared by {summary.pairs_per_keypoint:.2f} pairs on average, so few points are seen by "
            "three images. Match more pairs of neighbouring photographs."
        )
    noted_options, sources = recipe(layout, images, options), hloc_digests(layout)
    remember(layout, output, derived_from, asdict(summary), made_with=noted_options, sources=sources)
    return summary


def _up_to_date(database: Path, before: Mapping[str, Any], progress: Progress) -> DatabaseSummary:
    """The summary recorded when the database was made, which must still be readable."""
    with suppress(BusyError):
        read_content(database)
    progress.say(f"{database} is up to date")
    sentences = {key: tuple(before.get(key, ())) for key in _SENTENCES}
    summary = DatabaseSummary(**{**before, **sentences, "calibrated": calibrations(before)})
    _tell(summary, progress)
    return summary


def _look_at_photographs(images: Path, layout: Layout, options: ImportOptions, progress: Progress) -> None:
    """Warn about photographs that changed since they were matched."""
    known = note_photographs(layout, images, read_images(layout.images), progress)
    names = [name for name in known if options.only is None or name in options.only]
    if changed := look_at(ImageList(images, tuple(names)), known).changed:
        progress.warn(
            f"{named_as_changed(changed)}. Keypoints there may not fit. Run `romacli match` with --changed rematch "
            "to match such pairs again, or with --changed keep if they show the same"
        )


def _is_calibrated(options: ImportOptions) -> bool:
    """Whether focal lengths are estimated; given ones never change."""
    return options.calibrate and options.cameras.params is None and options.known_poses is None


def _tell(summary: DatabaseSummary, progress: Progress) -> None:
    """Report pairs left out, and evidence of pairs against cameras and EXIF data."""
    for sentence in summary.contradicted:
        progress.warn(
            f"{sentence}. Were the photographs cropped or resized, or taken with a fisheye? --camera-params gives the "
            "true one"
        )
    for sentence in summary.separated:
        progress.say(sentence)
    for sentence in summary.mixed:
        progress.warn(
            f"{sentence}. Is there another camera, a zoom or a crop among them? Use --camera-mode per-image, or a "
            "folder for each and --camera-mode per-folder"
        )
    for sentence in summary.odd:
        progress.warn(sentence)
    if summary.failed:
        progress.warn(
            f"{counted(len(summary.failed), 'pair')} could not be verified and "
            f"{'is' if len(summary.failed) == 1 else 'are'} left out: {first_few(summary.failed)}"
        )


def _require_one_origin(layout: Layout, features: FeaturesFile, matches: MatchesFile) -> None:
    """Check that both files are from one run, or from other tools.

    Raises:
        StoreError: a run was stopped between the two.
    """
    origins = [file.provenance().get("derived_from") for file in (features, matches)]
    if None not in origins and origins[0] != origins[1]:
        raise StoreError(
            f"{layout.features} and {layout.matches} are from different runs, as one was stopped between them. Run "
            "the same `romacli match` or `romacli aggregate` command again."
        )


def _in_folder(images: Path, held: Sequence[str]) -> dict[str, str]:
    """The names in the hloc files, by their spelling in the folder, which COLMAP needs to open the files."""
    if all((images / name).is_file() for name in held):
        return dict(zip(held, held, strict=True))
    return respelled(dict(zip(held, held, strict=True)), files_under(images))


def _matched_sizes(
    features: FeaturesFile, held_as: Mapping[str, str], options: ImportOptions, progress: Progress
) -> dict[str, Size]:
    """The sizes of the images to import: those requested that were readable when matched."""
    names = [name for name in held_as if options.only is None or name in options.only]
    sizes = {name: features.image_size(held_as[name]) for name in names}
    unread = [name for name, size in sizes.items() if size == UNREAD]
    if unread:
        progress.warn(
            f"{counted(len(unread), 'photograph is', 'photographs are')} left out of the database, {unread[0]} first: "
            "unreadable when the others were matched"
        )
    return {name: size for name, size in sizes.items() if size != UNREAD}


def _tell_of_growth(database: Path, images: Collection[str], progress: Progress) -> None:
    """Report whether ids stay valid for models elsewhere, if a database gets more images."""
    former = read_numbers(database, images).images
    new = len(images) - len(former.keys() & set(images))
    if former and new:
        progress.say(
            f"{counted(new, 'image is', 'images are')} new and numbered after the others, which keep their numbers. "
            "`romacli register` adds them to the model; see database.db in romacli-formats(7)"
        )


def _sure(features: FeaturesFile, held_as: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Which keypoints refinement confirmed, (K,) bool by name, for images where it confirmed most.

    COLMAP weights all observations equally, so a few that are off by a pixel undo the gain of the others.
    """
    found = {name: features.uncertainty(held) for name, held in held_as.items()}
    refined = {name: one.quality > 0 for name, one in found.items() if one is not None and len(one.quality)}
    return {name: sure for name, sure in refined.items() if sure.mean() >= _ENOUGH_SURE}


def _with_matches(
    pairs: Sequence[Pair], named: Mapping[str, str], matches: MatchesFile, progress: Progress
) -> Iterator[tuple[Pair, np.ndarray]]:
    """The pairs with matches; the others, such as rejected ones, only advance the progress."""
    for a, b in pairs:
        rows = matches.matches(a, b).indices
        if len(rows):
            yield (named[a], named[b]), rows
        else:
            progress.advance()


def _info(images: Path, name: str, size: Size) -> ImageInfo:
    """What choosing a camera needs, after checking that the photograph still has the size it was matched at."""
    info = known_image(images, name)
    require_size(images / name, info.size, matched=size)
    return info


def _priors(infos: Sequence[ImageInfo], progress: Progress) -> dict[str, Position]:
    """The GPS positions for the database."""
    gps = {info.name: info.gps for info in infos if info.gps is not None}
    faults = {info.name: info.gps_fault for info in infos if info.gps_fault is not None}
    return believed(gps, faults, len(infos), progress)


def _expected_bytes(layout: Layout) -> int:
    """The maximum size of the database: a match takes 6 bytes in `matches.h5`, and 16 in the database if verified.

    Doubled, as SQLite first writes a whole transaction next to the database.
    """
    return 2 * (layout.features.stat().st_size + 3 * layout.matches.stat().st_size)


def _database_digest(layout: Layout, options: ImportOptions) -> str:
    """A digest of what a database depends on: its source files, the images, their cameras, the verification."""
    only = None if options.only is None else sorted(options.only)
    rigs = options.cameras.rigs and file_digest(options.cameras.rigs.path)
    cameras = repr(replace(options.cameras, rigs=None))
    model = model_digests(options.known_poses)
    parts = [hloc_digests(layout), only, cameras, rigs, model, asdict(options.verify)]
    return digest([*parts, *([] if options.calibrate else ["uncalibrated"])])


def hloc_digests(layout: Layout) -> list[Any]:
    """The digests of the hloc files as JSON values, or of their sources if they record them.

    Raises:
        InputError, StoreError: one cannot be read.
    """
    found: list[Any] = []
    for path in (layout.features, layout.matches):
        with ReadFile(path) as file:
            provenance = file.provenance()
        is_ours = "derived_from" in provenance
        found.append([provenance["derived_from"], provenance.get("romacli")] if is_ours else file_digest(path))
    return found
