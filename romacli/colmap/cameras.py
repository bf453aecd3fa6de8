"""Decide which photographs share a camera, from names, sizes and EXIF metadata."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from statistics import median
from typing import Any, Literal

from romacli.errors import UsageError
from romacli.geometry.globe import Position
from romacli.types import Size
from romacli.words import counted_of

from .binding import load_pycolmap
from .intrinsics import camera_of_model, check_known_model, check_params
from .options import PANORAMA, CameraOptions
from .rigs import RigCamera

# COLMAP's guess if nothing is known (ImageReaderOptions.default_focal_length_factor): 45 deg across.
DEFAULT_FOCAL_FACTOR = 1.2
# How far width / height of a panorama may be from 2 after rounding and stitching.
_PANORAMA_TOLERANCE = 0.02
# Focal lengths of one lens differ by less than this factor in EXIF data, by rounding and focus breathing.
_SAME_FOCAL = 1.05

_DEFAULT = CameraOptions()


@dataclass(frozen=True)
class ImageInfo:
    """The metadata of a photograph; `focal_length_px` and `gps` are None if missing.

    gps: (latitude, longitude, altitude) in degrees and m; gps_fault: why it is implausible.
    device: maker, model, lens and focal length in mm, "" if missing.
    """

    name: str
    size: Size
    focal_length_px: float | None = None
    gps: Position | None = None
    gps_fault: str | None = None
    device: str = ""


@dataclass(frozen=True)
class CameraSpec:
    """A camera: COLMAP's model, the size (width, height), and the source of its parameters."""

    model: str
    size: Size
    params: tuple[float, ...]
    origin: Literal["given", "exif", "guess"]

    @property
    def has_prior_focal_length(self) -> bool:
        return self.origin != "guess"


def assign_cameras(
    images: Sequence[ImageInfo], options: CameraOptions = _DEFAULT
) -> tuple[list[CameraSpec], dict[str, int]]:
    """Assign cameras: the cameras, and the index of each photograph's camera by name.

    With mode "auto", the photographs of one folder with the same size, device and focal length (rounded to px, or
    equally unknown) share one. Cameras are numbered by the first of their images in plain string order.

    Raises:
        UsageError: the model is unknown, `params` do not fit it, or photographs that are to share a camera or
            `params` differ in size, or `params` cannot be those of the photographs.
    """
    _check_params(options)
    groups: dict[Hashable, list[ImageInfo]] = {}
    for image in sorted(images, key=lambda image: image.name):
        groups.setdefault(_group_key(image, options), []).append(image)
    for key, group in groups.items():
        giver = "--rig-config" if isinstance(key, RigCamera) else f"--camera-mode {options.mode}"
        _check_same_size(group, f"{giver} gives them one camera. Use --camera-mode auto.")
    if options.params is not None:
        _check_same_size(images, "--camera-params describe one size. Leave them out, or split the folder by size.")
    cameras = [_camera(group, _of_rig(key, group, options)) for key, group in groups.items()]
    return cameras, {image.name: index for index, group in enumerate(groups.values()) for image in group}


def shared_untold(
    images: Sequence[ImageInfo], camera_of: Mapping[str, int], options: CameraOptions
) -> list[list[ImageInfo]]:
    """The photographs, by camera, that share one only because of their size."""
    if options.mode != "auto" or options.params is not None or options.model == PANORAMA:
        return []
    groups = [group for group in _sharing(images, camera_of) if not any(map(_told, group))]
    return [group for group in groups if options.rigs is None or options.rigs.camera_of(group[0].name) is None]


def sharing_doubts(images: Sequence[ImageInfo], camera_of: Mapping[str, int]) -> list[str]:
    """Warnings about cameras shared by photographs of several devices, by their EXIF data."""
    found = []
    for group in _sharing(images, camera_of):
        told = [image for image in group if _told(image)]
        other = next((image for image in told if differ(told[0], image)), None)
        if other:
            found.append(
                f"one camera is shared by photographs of several: {told[0].name} ({_told(told[0])}) and {other.name} "
                f"({_told(other)}). Use --camera-mode auto"
            )
    return found


def panorama_doubts(
    images: Sequence[ImageInfo], cameras: Sequence[CameraSpec], camera_of: Mapping[str, int]
) -> list[str]:
    """A warning if spherical cameras are used for photographs that are not panoramas."""
    ordinary = [
        image
        for image in sorted(images, key=lambda image: image.name)
        if cameras[camera_of[image.name]].model == PANORAMA
        and (image.focal_length_px or abs(image.size[0] / image.size[1] - 2) > _PANORAMA_TOLERANCE)
    ]
    if not ordinary:
        return []
    first, (width, height) = ordinary[0], ordinary[0].size
    told = f", {first.focal_length_px:.0f} px focal length by EXIF" if first.focal_length_px else ""
    return [
        f"{PANORAMA} is for spherical panoramas, twice as wide as high; "
        f"{counted_of(len(ordinary), len(images), 'photograph', 'is', 'are')} not, starting with {first.name} "
        f"({width}x{height} px{told}). Leave --camera-model out for ordinary photographs"
    ]


def _sharing(images: Sequence[ImageInfo], camera_of: Mapping[str, int]) -> list[list[ImageInfo]]:
    """The photographs of each camera that took more than one."""
    groups: dict[int, list[ImageInfo]] = {}
    for image in sorted(images, key=lambda image: image.name):
        groups.setdefault(camera_of[image.name], []).append(image)
    return [group for group in groups.values() if len(group) > 1]


def _told(image: ImageInfo) -> str:
    focal = f"{image.focal_length_px:.0f} px" if image.focal_length_px else ""
    return ", ".join(filter(None, (image.device, focal)))


def differ(one: ImageInfo, other: ImageInfo) -> bool:
    """Whether two photographs differ in camera or focal length, by what both tell."""
    lengths = one.focal_length_px, other.focal_length_px
    focal_differs = None not in lengths and max(lengths) > _SAME_FOCAL * min(lengths)  # type: ignore[operator, type-var]
    return focal_differs or bool(one.device and other.device and one.device != other.device)


def to_pycolmap(camera: CameraSpec) -> Any:
    """Build the pycolmap.Camera of a specification."""
    width, height = camera.size
    made = load_pycolmap().Camera(model=camera.model, width=width, height=height, params=list(camera.params))
    made.has_prior_focal_length = camera.has_prior_focal_length
    return made


def _group_key(image: ImageInfo, options: CameraOptions) -> Hashable:
    folder, mode = PurePosixPath(image.name).parent, options.mode
    if options.rigs is not None and (camera := options.rigs.camera_of(image.name)):
        return camera
    if mode == "single":
        return None
    if mode == "per-folder":
        return folder
    if mode == "per-image":
        return image.name
    return folder, image.size, image.device, image.focal_length_px and round(image.focal_length_px)


def _check_same_size(images: Sequence[ImageInfo], advice: str) -> None:
    first = images[0] if images else None
    for image in images:
        if first and image.size != first.size:
            sizes = ["{} is {}x{}".format(one.name, *one.size) for one in (first, image)]
            raise UsageError(f"{sizes[0]} and {sizes[1]} px, but {advice}")


def _camera(group: Sequence[ImageInfo], options: CameraOptions) -> CameraSpec:
    size = group[0].size
    if options.params is not None:
        return CameraSpec(options.model, size, options.params, "given")
    known = [image.focal_length_px for image in group if image.focal_length_px]
    focal = median(known) if known else DEFAULT_FOCAL_FACTOR * max(size)
    params = camera_of_model(options.model, focal, size).params
    return CameraSpec(options.model, size, tuple(params.tolist()), "exif" if known else "guess")


def _of_rig(key: Hashable, group: Sequence[ImageInfo], options: CameraOptions) -> CameraOptions:
    """The options of a group: a rig's camera may have a model and parameters of its own."""
    if not isinstance(key, RigCamera) or key.model is None:
        _check_params(options, group)
        return options
    own = replace(options, model=key.model, params=key.params)
    file = options.rigs.path if options.rigs else ""
    _check_params(own, group, f"{file}: camera_params of {key.prefix}", "camera_model_name")
    return own


def _check_params(
    options: CameraOptions,
    group: Sequence[ImageInfo] = (),
    params_option: str = "--camera-params",
    model_option: str = "--camera-model",
) -> None:
    check_known_model(options.model, model_option)
    if options.params is not None:
        known = [image.focal_length_px for image in group if image.focal_length_px]
        check_params(options.model, options.params, params_option, group[0].size if group else None, known)
