"""Queries before matching: their files, cameras, and which were taken together."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.cameras import ImageInfo, differ
from romacli.colmap.intrinsics import check_known_model, check_params
from romacli.colmap.rigs import RigCamera, RigFile, check_rigs, require_placed
from romacli.errors import ImageError, InputError, UsageError
from romacli.geometry.warp import REFERENCE_LONG_SIDE
from romacli.images.listing import list_images
from romacli.images.metadata import ImageMetadata, read_metadata
from romacli.localize.map import Map
from romacli.localize.options import LocalizeOptions
from romacli.localize.pose import QueryCamera, guessed_camera, read_query_list
from romacli.names import respelled, with_guess
from romacli.progress import Progress
from romacli.run.photographs import tell_left_out
from romacli.words import first_few


@dataclass(frozen=True)
class Query:
    """A photograph to localize.

    file: its name under the common root. per_px: its px per px at a long side of 1600. sensor: the rig camera that
    took it.
    """

    name: str
    file: str
    per_px: float
    camera: QueryCamera = field(compare=False)
    sensor: RigCamera | None = None


@dataclass(frozen=True)
class Queries:
    """Queries and map images under one root, so that they can be matched as one image list.

    folder: of the queries. listed: all their names. readable: those that can be read, by name. map_files: the map's
    images under the root, by their names in the map. itself: for queries that are photographs of the map, their names
    there. failures: why the others cannot be read.
    """

    root: Path
    folder: Path
    listed: Sequence[str]
    readable: Mapping[str, Query]
    map_files: Mapping[str, str]
    itself: Mapping[str, str]
    failures: Mapping[str, str]

    def frames(self, rigs: RigFile | None) -> list[list[str]]:
        """Queries grouped by pose, in order: single ones, or those taken simultaneously by a rig."""
        frames: dict[Any, list[str]] = {}
        for name in self.listed:
            camera = rigs.camera_of(name) if rigs else None
            number = next((k for k, rig in enumerate(rigs.rigs) if camera in rig), None) if rigs and camera else None
            key = name if camera is None else (number, name.removeprefix(camera.prefix))
            frames.setdefault(key, []).append(name)
        return list(frames.values())


def read_queries(folder: Path, target: Map, options: LocalizeOptions, progress: Progress) -> Queries:
    """Inspect the photographs of a folder, or those of the list in it.

    Raises:
        InputError: there are none; a list names others, or gives another size; a rig does not fit them.
    """
    images = list_images(folder)
    found = images.names
    if options.query_list is None:
        tell_left_out(images.left_out, progress)
    listed = respelled(read_query_list(options.query_list), found) if options.query_list else {}
    if strangers := sorted(listed.keys() - set(found)):
        raise InputError(
            f"{options.query_list} names queries that {folder} lacks: "
            f"{first_few([with_guess(name, found) for name in strangers])}. Names are relative to that folder."
        )
    names = list(listed or found)
    if options.rigs:
        check_rigs(options.rigs, names)
        require_placed(options.rigs, "Add them: the common pose of a frame needs them.")
    root = Path(os.path.commonpath([folder.resolve(), target.images.resolve()]))
    as_query, as_map = (each.resolve().relative_to(root) for each in (folder, target.images))
    map_files = {name: (as_map / file).as_posix() for name, file in target.files.items()}
    files = {name: (as_query / name).as_posix() for name in names}
    readable, failures = {}, {}
    for name in names:
        sensor = options.rigs.camera_of(name) if options.rigs else None
        try:
            metadata = read_metadata(folder / name)
        except ImageError as error:
            failures[name] = str(error)
            continue
        camera = _camera(name, metadata, listed.get(name), sensor, target, options)
        readable[name] = Query(name, files[name], max(metadata.size) / REFERENCE_LONG_SIDE, camera, sensor)
    image_of = {file: image for image, file in map_files.items()}
    itself = {name: image_of[file] for name, file in files.items() if file in image_of}
    itself |= {name: name for name in names if name not in itself and _is_copy(folder / name, name, target)}
    return Queries(root, folder.resolve(), names, readable, map_files, itself, failures)


def _camera(
    name: str,
    metadata: ImageMetadata,
    listed: QueryCamera | None,
    sensor: RigCamera | None,
    target: Map,
    options: LocalizeOptions,
) -> QueryCamera:
    """The camera from the list, the rig, the map's only camera or EXIF data; otherwise one to be estimated.

    The map's is not taken if EXIF data tell of another.
    """
    if listed is not None:
        told = listed.camera.width, listed.camera.height
        if told != metadata.size:
            raise InputError(
                f"{options.query_list}: {name} has {told[0]}x{told[1]} px there, but the photograph has "
                f"{metadata.size[0]}x{metadata.size[1]}. Give the intrinsics for this size."
            )
        return listed
    if sensor is not None and sensor.model is not None and sensor.params is not None:
        return _camera_of_rig(sensor, metadata, options)
    camera = target.only_camera(metadata.size)
    if camera is not None and not _is_of_another(metadata, target):
        return QueryCamera(camera)
    guessed = guessed_camera(metadata.size, metadata.focal_length_px)
    if sensor is not None and guessed.estimate:
        raise InputError(
            f"{name} has no intrinsics, which cannot be estimated with a rig's pose: no focal length in its EXIF data, "
            f"and no camera_params of {sensor.prefix} in the rig file. Add them, or give --query-list."
        )
    return guessed


def _is_of_another(metadata: ImageMetadata, target: Map) -> bool:
    """Whether EXIF data tell of another camera or focal length than those of all the map's photographs that tell any.

    Zoom lenses take photographs of one size at many focal lengths.
    """
    query = _told(metadata)
    if query is None:
        return False
    differs = False
    for file in target.files.values():
        try:
            known = _told(read_metadata(target.images / file))
        except ImageError:
            continue
        if known is not None and not differ(query, known):
            return False
        differs = differs or known is not None
    return differs


def _told(metadata: ImageMetadata) -> ImageInfo | None:
    """What EXIF data tell of the camera, if anything."""
    if not metadata.device and not metadata.focal_length_px:
        return None
    return ImageInfo("", metadata.size, metadata.focal_length_px, device=metadata.device)


def _camera_of_rig(sensor: RigCamera, metadata: ImageMetadata, options: LocalizeOptions) -> QueryCamera:
    assert options.rigs is not None
    assert sensor.model is not None
    assert sensor.params is not None
    width, height = metadata.size
    place = f"{options.rigs.path}: camera_params of {sensor.prefix}"
    try:
        check_known_model(sensor.model, f"{options.rigs.path}: camera_model_name")
        check_params(sensor.model, sensor.params, place, metadata.size)
    except UsageError as error:
        raise InputError(str(error)) from error
    pycolmap = load_pycolmap()
    return QueryCamera(pycolmap.Camera(model=sensor.model, width=width, height=height, params=list(sensor.params)))


def _is_copy(path: Path, name: str, target: Map) -> bool:
    """Whether the map has a photograph with the same name and content."""
    same = target.images / target.files[name] if name in target.files else None
    try:
        return same is not None and filecmp.cmp(path, same, shallow=False)
    except OSError:
        return False
