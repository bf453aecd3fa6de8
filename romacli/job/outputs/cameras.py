"""Choose the cameras of photographs to import, and check them before matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from romacli.colmap.cameras import CameraSpec, ImageInfo, assign_cameras, panorama_doubts, shared_untold, sharing_doubts
from romacli.colmap.options import CameraOptions
from romacli.colmap.rigs import check_rigs, require_placed
from romacli.errors import ImageError, InputError
from romacli.images.extras import HEIC, RAW
from romacli.images.metadata import read_metadata
from romacli.job.options import ImportOptions
from romacli.mapping.cameras import known_cameras
from romacli.mapping.georeference import FEWEST_POSITIONS
from romacli.mapping.mappers import check_settings
from romacli.mapping.options import MapperOptions
from romacli.progress import Progress, Silent
from romacli.types import ImageList
from romacli.words import counted, counted_of, first_few

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
            f"COLMAP cannot read {len(unreadable)} of the photographs, starting with {unreadable[0]}. Such "
            "photographs are mapped, but their points have no colour and they cannot be undistorted. Convert them to "
            "JPEG or PNG for that"
        )
    if options.known_poses is None:
        if options.cameras.rigs is not None:
            frames = check_rigs(options.cameras.rigs, [info.name for info in infos])
            progress.say(f"{counted(frames, 'frame')} of {counted(len(options.cameras.rigs.rigs), 'rig')}")
        cameras, camera_of = assign_cameras(infos, options.cameras)
        _tell_sharing(infos, camera_of, options, progress)
        for doubt in panorama_doubts(infos, cameras, camera_of):
            progress.warn(doubt)
        return cameras, camera_of
    cameras, camera_of = known_cameras(options.known_poses, infos)
    if len(camera_of) < len(infos):
        without = [info.name for info in infos if info.name not in camera_of]
        progress.warn(
            f"{counted_of(len(without), len(infos), 'photograph', 'has', 'have')} no pose in {options.known_poses}, so "
            f"no place in the database: {first_few(without)}"
        )
    return cameras, camera_of


def _tell_sharing(
    infos: Sequence[ImageInfo], camera_of: Mapping[str, int], options: ImportOptions, progress: Progress
) -> None:
    """Report which photographs share a camera only by size, and warn about those that should not."""
    if untold := shared_untold(infos, camera_of, options.cameras):
        unless = " unless their pairs tell otherwise" if options.calibrate and options.cameras.rigs is None else ""
        count = counted(sum(map(len, untold)), "photograph")
        progress.say(
            f"{count} without camera or focal length in their EXIF data, starting with {untold[0][0].name}, share "
            f"{counted(len(untold), 'camera')}{unless}; use --camera-mode per-image where cameras or zooms differ"
        )
    for doubt in sharing_doubts(infos, camera_of):
        progress.warn(doubt)


def loose_images(infos: Sequence[ImageInfo], camera_of: Mapping[str, int], options: CameraOptions) -> frozenset[str]:
    """The photographs that share a camera only because of their size; their pairs may show different cameras."""
    placed = [info for info in infos if info.name in camera_of]
    groups = [] if options.rigs is not None else shared_untold(placed, camera_of, options)
    return frozenset(info.name for group in groups for info in group)


def check_early(
    images: ImageList, importing: ImportOptions, mapping: MapperOptions, *, georeferenced: bool = False
) -> None:
    """Check cameras, rigs, poses, positions and the mapper's options before matching.

    georeferenced: the model will be aligned to GPS positions.

    Raises:
        InputError, UsageError: as `import_matches` and `make_model` would.
    """
    check_settings(mapping)
    if importing.cameras.rigs is not None and mapping.mapper not in ("auto", "global"):
        require_placed(importing.cameras.rigs, "Add them, or use --mapper global or auto, which estimate them.")
    names = [name for name in images.names if importing.only is None or name in importing.only]
    infos = []
    for name in names:
        with suppress(ImageError):  # reported by matching
            infos.append(known_image(images.root, name))
    choose_cameras(infos, importing, Silent())
    placed = sum(info.gps is not None for info in infos)
    if georeferenced and placed < FEWEST_POSITIONS:
        raise InputError(
            f"--georeference needs the GPS positions of {FEWEST_POSITIONS} photographs or more; {placed} of "
            f"{len(infos)} in {images.root} have one in their EXIF data. Leave it out."
        )


def known_image(images: Path, name: str) -> ImageInfo:
    metadata = read_metadata(images / name)
    return ImageInfo(name, metadata.size, metadata.focal_length_px, metadata.gps, metadata.gps_fault, metadata.device)
