"""Which photographs share a camera and what is known of it, decided before anything is written.

Takes names, sizes and focal lengths, and opens no image.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from statistics import median
from typing import Any, Literal

from romacli.errors import UsageError
from romacli.geometry.globe import Position
from romacli.types import Size

from .binding import load_pycolmap
from .rigs import RigCamera, RigFile

CameraMode = Literal["auto", "single", "per-folder", "per-image"]

# COLMAP's guess where nothing is known (ImageReaderOptions.default_focal_length_factor): 45 deg across.
DEFAULT_FOCAL_FACTOR = 1.2


@dataclass(frozen=True)
class CameraOptions:
    """How photographs share cameras. `params` come from the user and hold for every image.

    rigs: cameras that move together; those images share a camera whose names begin alike.
    """

    mode: CameraMode = "auto"
    # COLMAP's choice: one focal length and one radial term are what uncalibrated photographs determine.
    model: str = "SIMPLE_RADIAL"
    params: tuple[float, ...] | None = None
    rigs: RigFile | None = None


@dataclass(frozen=True)
class ImageInfo:
    """What is known of a photograph; `focal_length_px` and `gps` are None where its file tells none.

    gps: (latitude, longitude, altitude) in degrees and m; gps_fault: why one that the file tells is not believed.
    """

    name: str
    size: Size
    focal_length_px: float | None = None
    gps: Position | None = None
    gps_fault: str | None = None


@dataclass(frozen=True)
class CameraSpec:
    """One camera: COLMAP's model, the size (width, height), and where its parameters come from."""

    model: str
    size: Size
    params: tuple[float, ...]
    origin: Literal["given", "exif", "guess"]

    @property
    def has_prior_focal_length(self) -> bool:
        return self.origin != "guess"


def assign_cameras(
    images: Sequence[ImageInfo], options: CameraOptions = CameraOptions()
) -> tuple[list[CameraSpec], dict[str, int]]:
    """Give every photograph a camera: the cameras, and the index of each image's camera by name.

    With mode "auto", the photographs of one folder with the same size and focal length (rounded to px, or
    equally unknown) share one. Cameras are numbered by the first of their images in plain string order.

    Raises:
        UsageError: the model is unknown, `params` do not fit it, or photographs that are to share a camera or
            `params` differ in size.
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
    cameras = [_camera(group, _of_rig(key, options)) for key, group in groups.items()]
    return cameras, {image.name: index for index, group in enumerate(groups.values()) for image in group}


def parse_camera_params(text: str) -> tuple[float, ...]:
    """Read `--camera-params`, numbers separated by commas: "1400, 800, 600, 0".

    Raises:
        UsageError: a part is not a number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--camera-params {text!r} are not numbers separated by commas.") from error


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
    return folder, image.size, image.focal_length_px and round(image.focal_length_px)


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
    params = _default_camera(options.model, focal, size).params
    return CameraSpec(options.model, size, tuple(params.tolist()), "exif" if known else "guess")


def _of_rig(key: Hashable, options: CameraOptions) -> CameraOptions:
    """The options of a group: a rig's camera may have a model and parameters of its own."""
    if not isinstance(key, RigCamera) or key.model is None:
        return options
    own = replace(options, model=key.model, params=key.params)
    _check_params(
        own, f"{options.rigs.path if options.rigs else ''}: camera_params of {key.prefix}", "camera_model_name"
    )
    return own


def _default_camera(model: str, focal: float, size: Size) -> Any:
    """COLMAP's camera of a model: principal point in the middle, no distortion."""
    return load_pycolmap().Camera.create_from_model_name(0, model, focal, *size)


def _check_params(
    options: CameraOptions, params_option: str = "--camera-params", model_option: str = "--camera-model"
) -> None:
    models = [name for name in load_pycolmap().CameraModelId.__members__ if name != "INVALID"]
    if options.model not in models:
        raise UsageError(f"{model_option} {options.model} is unknown. COLMAP's models are {', '.join(models)}.")
    if options.params is None:
        return
    camera = _default_camera(options.model, 1.0, (1, 1))
    if len(options.params) != len(camera.params):
        given = f"{params_option} has {len(options.params)} numbers"
        raise UsageError(f"{options.model} takes {camera.params_info}: {len(camera.params)} numbers; {given}.")
    focal = [options.params[index] for index in camera.focal_length_idxs()]
    if not all(0 < value < float("inf") for value in focal):
        raise UsageError(
            f"{params_option}: the focal length has to be positive; {options.model} takes {camera.params_info}."
        )
