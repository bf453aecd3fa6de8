"""From a job's hloc files to a verified COLMAP database and a model, reusing what is up to date."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.cameras import CameraSpec, ImageInfo, assign_cameras, panorama_doubts, shared_untold, sharing_doubts
from romacli.colmap.database import DatabaseSummary, check_replaceable, write_database
from romacli.colmap.numbers import read_numbers
from romacli.colmap.options import CameraOptions, VerifyOptions
from romacli.colmap.reading import database_content, read_inliers, read_model
from romacli.colmap.rigs import check_rigs, read_rigs, require_placed
from romacli.errors import ImageError, InputError, NothingFoundError, RomacliError, StoreError
from romacli.geometry.globe import Position
from romacli.images.extras import HEIC, RAW
from romacli.images.listing import files_under
from romacli.images.metadata import read_metadata
from romacli.job.derived import content, digest, held_by, made_with, noted_path, remember, sources_of
from romacli.job.diagnosis import advice, placed_of
from romacli.job.options import ImportOptions
from romacli.job.views import triangle_agreement
from romacli.mapping.cameras import known_cameras
from romacli.mapping.georeference import FEWEST_POSITIONS, GpsFit, georeference
from romacli.mapping.mappers import check_settings
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import COLMAP_FILES, ReconstructionSummary, read_content, reconstruct
from romacli.names import respelled
from romacli.pairing.gps import believed
from romacli.progress import Progress, Silent
from romacli.run.photographs import require_size
from romacli.stop import StopRequest
from romacli.store.history import noted
from romacli.store.hloc import UNREAD, FeaturesFile, MatchesFile, read_provenance
from romacli.store.layout import Layout
from romacli.store.lease import lease
from romacli.store.manifest import read_manifest
from romacli.types import ImageList, Pair, Size
from romacli.words import counted, first_few

_VIEW = "database "
MODEL = "sparse"
UNREADABLE_BY_COLMAP = (
    ".webp",
    ".avif",
    ".gif",
    ".jp2",
    ".j2k",
    ".pam",
    ".ras",
    ".sr",
    *HEIC.extensions,
    *RAW.extensions,
)
# Below it hardly any keypoint is seen by three images, and COLMAP registers two of them.
FEWEST_PAIRS_PER_KEYPOINT = 1.2


def import_matches(
    images: Path, layout: Layout, options: ImportOptions, progress: Progress, stop: StopRequest
) -> DatabaseSummary:
    """Verify the matches of a job and write its COLMAP database, unless that is up to date.

    Raises:
        BusyError: another process is at work in the folder.
        InputError: the folder holds no matches, or a photograph is gone or has changed its size.
        StoreError: the database is somebody else's.
    """
    for file in (layout.features, layout.matches):
        if not file.exists():
            raise InputError(f"{layout.root} holds no {file.name}. Run `romacli match` with this --output first.")
    with _at_work(layout, progress, stop):
        return _import_matches(images, layout, options, progress, stop)


def _import_matches(
    images: Path, layout: Layout, options: ImportOptions, progress: Progress, stop: StopRequest
) -> DatabaseSummary:
    database = options.database or layout.database
    view, derived_from = _view_of(layout, database), _database_digest(layout, options)
    held = held_by(layout, view, derived_from)
    if database.exists() and held is not None:
        progress.say(f"{database} is up to date")
        summary = DatabaseSummary(**{**held, **{key: tuple(held.get(key, ())) for key in _SENTENCES}})
        _tell(summary, progress)
        return summary
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
            matches=_with_matches(pairs, named, matches, _sure(features), progress),
            verify=options.verify,
            gps=gps,
            rigs=options.cameras.rigs,
            overwrite=options.overwrite,
            calibrate=_is_calibrated(options),
            expected_bytes=_expected_bytes(layout),
            progress=lambda _: progress.advance(),
        )
        counts.update(pairs=summary.pairs)
    for sentence in summary.calibrated:
        progress.say(sentence)
    _tell(summary, progress)
    if summary.pairs and summary.pairs_per_keypoint < FEWEST_PAIRS_PER_KEYPOINT:
        progress.warn(
            f"a keypoint is shared by {summary.pairs_per_keypoint:.2f} pairs on average, so few points are seen by "
            "three images. Match more pairs of neighbouring photographs."
        )
    noted_options, sources = _noted(layout, images, options), _hloc_content(layout)
    remember(layout, view, derived_from, asdict(summary), made_with=noted_options, sources=sources)
    return summary


# Keypoints that were not refined are left out of images with this share of refined ones, and pairs that keep so many
# matches.
_ENOUGH_SURE, _FEWEST_SURE = 0.5, 100
_SENTENCES = ("failed", "calibrated", "mixed", "contradicted")


def _is_calibrated(options: ImportOptions) -> bool:
    """Whether focal lengths are looked for: given ones are never touched."""
    return options.calibrate and options.cameras.params is None and options.known_poses is None


def _tell(summary: DatabaseSummary, progress: Progress) -> None:
    """The pairs that are left out, and cameras and EXIF data that pairs contradict."""
    for sentence in summary.contradicted:
        progress.warn(
            f"{sentence}. Were the photographs cropped or resized, or taken with a fisheye? --camera-params gives the "
            "true one"
        )
    for sentence in summary.mixed:
        progress.warn(
            f"{sentence}. Is there another camera, a zoom or a crop among them? Use --camera-mode per-image, or a "
            "folder for each and --camera-mode per-folder"
        )
    if summary.failed:
        progress.warn(
            f"{counted(len(summary.failed), 'pair is', 'pairs are')} left out, since they could not be verified: "
            f"{first_few(summary.failed)}"
        )


@dataclass(frozen=True)
class NotedImport:
    """How a database of a job was made: from which folder of photographs, with what options."""

    images: Path
    options: ImportOptions

    def command(self, layout: Layout) -> str:
        """The command that makes the database again."""
        chosen, default = self.options, ImportOptions()
        words = ["romacli", "colmap-import", str(self.images), "-o", str(layout.root)]
        if chosen.known_poses is not None:
            words[1] = "reconstruct"
        rigs = chosen.cameras.rigs
        flags = {
            "--database": (chosen.database, layout.database.resolve()),
            "--known-poses": (chosen.known_poses, None),
            "--camera-mode": (chosen.cameras.mode, default.cameras.mode),
            "--camera-model": (chosen.cameras.model, default.cameras.model),
            "--camera-params": (chosen.cameras.params and ",".join(map(repr, chosen.cameras.params)), None),
            "--rig-config": (rigs and rigs.path, None),
            "--no-calibrate": (None if chosen.calibrate else "", None),
            "--verify": (chosen.verify.method, default.verify.method),
            "--max-error": (chosen.verify.max_error_px, default.verify.max_error_px),
            "--min-inliers": (chosen.verify.min_inliers, default.verify.min_inliers),
        }
        for flag, (value, usual) in flags.items():
            if value is not None and value != usual:
                words += [flag, str(value)] if value != "" else [flag]
        return shlex.join(words) + (" with the same --image-list" if chosen.only is not None else "")


def said_of_cameras(layout: Layout, database: Path) -> tuple[str, ...]:
    """What was said of the cameras that got their focal length from the pairs when a database was made."""
    manifest = read_manifest(layout.manifest)
    view = manifest.views.get(_view_of(layout, database), {}) if manifest else {}
    return tuple(view.get("holds", {}).get("calibrated", ()))


def said_of_mappers(layout: Layout) -> tuple[str, ...]:
    """What each mapper that ran found, when the model was made."""
    manifest = read_manifest(layout.manifest)
    view = manifest.views.get(MODEL, {}) if manifest else {}
    return tuple(view.get("holds", {}).get("attempts", ()))


def noted_databases(layout: Layout) -> list[Path]:
    """The databases that were made of a job, wherever they are, and the one in its folder."""
    manifest = read_manifest(layout.manifest)
    views = [view.removeprefix(_VIEW) for view in (manifest.views if manifest else ()) if view.startswith(_VIEW)]
    noted = [layout.root / view for view in views]
    return [layout.database, *(path for path in noted if path.resolve() != layout.database.resolve())]


def noted_import(layout: Layout, database: Path) -> NotedImport | None:
    """How a database was made; None where nobody knows.

    Raises:
        InputError: the file of rigs that it was made with is gone or has changed into something else.
    """
    noted = json.loads(made_with(layout, _view_of(layout, database)) or "null")
    if noted is None:
        return None
    cameras = dict(noted["cameras"])
    rigs, params = cameras.pop("rigs"), cameras.pop("params")
    return NotedImport(
        layout.root / noted["images"],
        ImportOptions(
            database=database.resolve(),
            only=None if noted["only"] is None else frozenset(noted["only"]),
            known_poses=noted["known_poses"] and layout.root / noted["known_poses"],
            cameras=CameraOptions(
                **cameras, params=params and tuple(params), rigs=rigs and read_rigs(layout.root / rigs)
            ),
            verify=VerifyOptions(**noted["verify"]),
            calibrate=noted.get("calibrate", True),
        ),
    )


def _noted(layout: Layout, images: Path, options: ImportOptions) -> str:
    """The options of an import as JSON, with paths that hold in every folder."""
    cameras, rigs = options.cameras, options.cameras.rigs
    return json.dumps(
        {
            "images": noted_path(layout, images),
            "only": None if options.only is None else sorted(options.only),
            "known_poses": options.known_poses and noted_path(layout, options.known_poses),
            "cameras": {
                "mode": cameras.mode,
                "model": cameras.model,
                "params": cameras.params,
                "rigs": rigs and noted_path(layout, rigs.path),
            },
            "verify": asdict(options.verify),
            "calibrate": options.calibrate,
        }
    )


def choose_cameras(
    infos: Sequence[ImageInfo], options: ImportOptions, progress: Progress
) -> tuple[list[CameraSpec], dict[str, int]]:
    """The cameras of the photographs to import, and the index of each photograph's by name.

    Raises:
        InputError: a model of known poses, or a file of rigs, does not fit the photographs.
        UsageError: options that contradict each other.
    """
    unreadable = [info.name for info in infos if info.name.lower().endswith(UNREADABLE_BY_COLMAP)]
    if unreadable:
        progress.warn(
            f"COLMAP cannot read {len(unreadable)} of the photographs, {unreadable[0]} first: it maps them all the "
            "same, but leaves points without colour and cannot undistort them. Convert them to JPEG or PNG for that"
        )
    if options.known_poses is None:
        if options.cameras.rigs is not None:
            frames = check_rigs(options.cameras.rigs, [info.name for info in infos])
            progress.say(f"{frames} frames of {len(options.cameras.rigs.rigs)} rigs")
        cameras, camera_of = assign_cameras(infos, options.cameras)
        _tell_sharing(infos, camera_of, options.cameras, progress)
        for doubt in panorama_doubts(infos, cameras, camera_of):
            progress.warn(doubt)
        return cameras, camera_of
    cameras, camera_of = known_cameras(options.known_poses, infos)
    if len(camera_of) < len(infos):
        without = [info.name for info in infos if info.name not in camera_of]
        progress.warn(
            f"{len(without)} of {len(infos)} photographs, {without[0]} first, have no pose in {options.known_poses} "
            "and are left out"
        )
    return cameras, camera_of


def _tell_sharing(
    infos: Sequence[ImageInfo], camera_of: Mapping[str, int], options: CameraOptions, progress: Progress
) -> None:
    """Say what photographs share a camera by their size alone, and warn of those that should not."""
    if untold := shared_untold(infos, camera_of, options):
        count = counted(sum(map(len, untold)), "photograph")
        progress.say(
            f"{count} without camera or focal length in their EXIF data, {untold[0][0].name} first, share "
            f"{counted(len(untold), 'camera')}; use --camera-mode per-image where cameras or zooms differ"
        )
    for doubt in sharing_doubts(infos, camera_of):
        progress.warn(doubt)


def check_early(
    images: ImageList, importing: ImportOptions, mapping: MapperOptions, *, georeferenced: bool = False
) -> None:
    """Pass silently when cameras, rigs, poses, positions and the mapper's options fit, before there is anything to
    import.

    georeferenced: the model is to stand where the photographs were taken.

    Raises:
        InputError, UsageError: they do not; as `import_matches` and `make_model` would say.
    """
    check_settings(mapping)
    if importing.cameras.rigs is not None and mapping.mapper not in ("auto", "global"):
        require_placed(importing.cameras.rigs)
    names = [name for name in images.names if importing.only is None or name in importing.only]
    infos = []
    for name in names:
        with suppress(ImageError):  # matching names it
            infos.append(_known(images.root, name))
    choose_cameras(infos, importing, Silent())
    placed = sum(info.gps is not None for info in infos)
    if georeferenced and placed < FEWEST_POSITIONS:
        raise InputError(
            f"--georeference needs the GPS positions of {FEWEST_POSITIONS} photographs or more; {placed} of "
            f"{len(infos)} in {images.root} have one in their EXIF data. Leave it out."
        )


def make_model(
    images: Path, layout: Layout, database: Path, options: MapperOptions, progress: Progress, stop: StopRequest
) -> ReconstructionSummary:
    """Map the database into `sparse/`, unless the model there was made from the same with the same options.

    Raises:
        NothingFoundError: no pair is verified, or no model came out.
    """
    chosen = replace(options, verbose=False, known_poses=None)
    sources = [noted_path(layout, database), _rows_of(database)]
    derived_from = digest([sources[1], repr(chosen), _model_content(options.known_poses)])
    held = held_by(layout, MODEL, derived_from)
    if (layout.sparse / "0").exists() and held is not None:
        progress.say(f"{layout.sparse / '0'} is up to date")
        return ReconstructionSummary(**{**held, **{key: tuple(held.get(key, ())) for key in ("others", "attempts")}})
    with (
        _at_work(layout, progress, stop),
        noted(layout, "mapping", images=images) as counts,
        stop.at_once(),
    ):
        progress.begin("mapping", read_content(database).images)
        summary = reconstruct(database, images, layout.sparse, options, progress=progress.advance)
        counts.update(images=summary.registered)
        remember(layout, MODEL, derived_from, asdict(summary), sources=sources)
    return summary


def advice_on(layout: Layout, database: Path, names: Sequence[str], gps: GpsFit | None) -> list[str]:
    """What deserves a look in the largest model of a job, each with what to try next; names: of all images."""
    manifest = read_manifest(layout.manifest)
    placed = placed_of(
        read_model(layout.sparse / "0"),
        names,
        read_inliers(database),
        models=sum(path.name.isdigit() for path in layout.sparse.iterdir()),
        gps=gps,
        agreement=triangle_agreement(manifest) if manifest else None,
    )
    return advice(placed)


@dataclass(frozen=True)
class Outdated:
    """A file of a job whose source has changed since; `command` makes it anew."""

    file: str
    source: str
    command: str

    def __str__(self) -> str:
        return f"{self.file} was made from an earlier {self.source}. Run `{self.command}` again."


def outdated(layout: Layout) -> list[Outdated]:
    """Which of database and model were made from files that have changed since, by their content."""
    found = []
    noted = sources_of(layout, _view_of(layout, layout.database))
    if noted is not None and layout.database.exists() and noted != _hloc_content(layout):
        found.append(Outdated(layout.database.name, layout.matches.name, "romacli colmap-import"))
    name, rows = sources_of(layout, MODEL) or (None, None)
    if name is not None and (layout.sparse / "0").exists() and (layout.root / name).is_file():
        with suppress(RomacliError):
            if _rows_of(layout.root / name) != rows:
                found.append(Outdated(f"{layout.sparse.name}/0", name, "romacli reconstruct"))
    return found


@contextmanager
def _at_work(layout: Layout, progress: Progress, stop: StopRequest) -> Iterator[None]:
    """Hold the folder, where it is one of a job; files of other tools may lie where nothing can be written."""
    with ExitStack() as stack:
        if layout.manifest.exists():
            with stop.at_once():
                stack.enter_context(lease(layout.leases, say=progress.say))
        yield


def _require_one_origin(layout: Layout, features: FeaturesFile, matches: MatchesFile) -> None:
    """Pass silently when both files are of one run, or of other tools.

    Raises:
        StoreError: a run was stopped between the two.
    """
    origins = [file.provenance().get("derived_from") for file in (features, matches)]
    if None not in origins and origins[0] != origins[1]:
        raise StoreError(
            f"{layout.features} and {layout.matches} are of different runs, one of which was stopped between them. "
            "Run the same `romacli match` or `romacli aggregate` command again."
        )


def _in_folder(images: Path, held: Sequence[str]) -> dict[str, str]:
    """The names that the hloc files hold, by the folder's own spelling of them, which COLMAP has to open."""
    if all((images / name).is_file() for name in held):
        return dict(zip(held, held, strict=True))
    return respelled(dict(zip(held, held, strict=True)), files_under(images))


def _matched_sizes(
    features: FeaturesFile, held_as: Mapping[str, str], options: ImportOptions, progress: Progress
) -> dict[str, Size]:
    """The sizes of the images to import: those listed that could be read when they were to be matched."""
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
    """Say what becomes of models that other programs go on from, where a database gets further images."""
    former = read_numbers(database, images).images
    new = len(images) - len(former.keys() & set(images))
    if former and new:
        progress.say(
            f"{counted(new, 'image is', 'images are')} new and numbered after the others, which keep their numbers. "
            "For COLMAP to go on from a model made before, see database.db in romacli-formats(7)"
        )


def _sure(features: FeaturesFile) -> dict[str, np.ndarray]:
    """Which keypoints the photographs confirm, (K,) bool, of the images most of whose keypoints they do.

    COLMAP weighs all observations alike, so that few that are off by a pixel undo what the others gain.
    """
    precise = {name: features.precision(name) for name in features.names()}
    refined = {name: found.quality > 0 for name, found in precise.items() if found is not None and len(found.quality)}
    return {name: sure for name, sure in refined.items() if sure.mean() >= _ENOUGH_SURE}


def _with_matches(
    pairs: Sequence[Pair],
    named: Mapping[str, str],
    matches: MatchesFile,
    sure: Mapping[str, np.ndarray],
    progress: Progress,
) -> Iterator[tuple[Pair, np.ndarray]]:
    """The pairs that have matches, by their names; the others, such as rejected ones, are done at once.

    Of pairs with enough matches that are `sure` at both ends, these alone.
    """
    for a, b in pairs:
        rows = matches.matches(a, b).indices
        ends = [sure[name][rows[:, side]] for side, name in enumerate((a, b)) if name in sure]
        chosen = rows[np.all(ends, axis=0)] if ends else rows
        rows = chosen if len(chosen) >= _FEWEST_SURE else rows
        if len(rows):
            yield (named[a], named[b]), rows
        else:
            progress.advance()


def _info(images: Path, name: str, size: Size) -> ImageInfo:
    """What the choice of a camera needs, once the photograph is seen to be the one that was matched."""
    info = _known(images, name)
    require_size(images / name, info.size, matched=size)
    return info


def _known(images: Path, name: str) -> ImageInfo:
    metadata = read_metadata(images / name)
    return ImageInfo(name, metadata.size, metadata.focal_length_px, metadata.gps, metadata.gps_fault, metadata.device)


def _priors(infos: Sequence[ImageInfo], progress: Progress) -> dict[str, Position]:
    """The positions that go into the database."""
    gps = {info.name: info.gps for info in infos if info.gps is not None}
    faults = {info.name: info.gps_fault for info in infos if info.gps_fault is not None}
    return believed(gps, faults, len(infos), progress)


def _expected_bytes(layout: Layout) -> int:
    """How large the database may become: a match has 6 bytes in `matches.h5`, and 16 there when it is verified."""
    return layout.features.stat().st_size + 3 * layout.matches.stat().st_size


def _database_digest(layout: Layout, options: ImportOptions) -> str:
    """What a database depends on: the files it is made from, the images, their cameras, the verification."""
    only = None if options.only is None else sorted(options.only)
    rigs = options.cameras.rigs and content(options.cameras.rigs.path)
    cameras = repr(replace(options.cameras, rigs=None))
    model = _model_content(options.known_poses)
    parts = [_hloc_content(layout), only, cameras, rigs, model, asdict(options.verify)]
    return digest([*parts, *([] if options.calibrate else ["uncalibrated"])])


def _view_of(layout: Layout, database: Path) -> str:
    return _VIEW + noted_path(layout, database)


def _hloc_content(layout: Layout) -> list[Any]:
    """What stands for the content of the hloc files, as JSON values: what they were derived from, where they tell."""
    found: list[Any] = []
    for path in (layout.features, layout.matches):
        provenance = read_provenance(path) or {}
        is_ours = "derived_from" in provenance
        found.append([provenance["derived_from"], provenance.get("romacli")] if is_ours else content(path))
    return found


def _model_content(folder: Path | None) -> Any:
    """What a model's files hold, as JSON values."""
    if folder is None:
        return None
    return [[path.name, content(path)] for path in sorted(folder.iterdir()) if path.name in COLMAP_FILES]


def _rows_of(database: Path) -> str | None:
    """What stands for the content of a database, None where there is none."""
    return database_content(database) if database.is_file() else None


def georeference_models(layout: Layout, database: Path, progress: Progress) -> None:
    """Move the models of a job to the GPS positions of their photographs; smaller ones that cannot be are named.

    Raises:
        NothingFoundError: the largest cannot be.
    """
    for folder in sorted(layout.sparse.iterdir(), key=lambda path: (len(path.name), path.name)):
        try:
            georeference(folder, database)
        except NothingFoundError as error:
            if folder.name == "0":
                raise
            progress.warn(str(error))


def gps_values(fit: GpsFit) -> dict[str, Any]:
    """A comparison as JSON values."""
    return {
        "images": len(fit.residuals_m),
        "median_m": round(fit.median_m, 3),
        "largest_m": round(fit.largest_m, 3),
        "largest_image": fit.worst,
        "extent_m": round(fit.extent_m, 3),
    }
