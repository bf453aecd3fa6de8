"""Plausibility checks of given camera parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from romacli.errors import UsageError
from romacli.types import Size

from .binding import load_pycolmap

# Limits of focal lengths in longer sides: 157 degrees, and half a degree.
_FOCAL_PER_SIDE = (0.1, 100.0)
# EXIF focal lengths of cropped photographs are hardly ever off by more than this factor.
_MOST_BESIDE_EXIF = 2.0
# No lens has a first distortion term that moves the corner by this many times its radius: it is another number.
_MOST_DISTORTION = 10.0
# A principal point this far along the diagonal, and this close to it, is the centre of another image size.
_OTHER_SCALE, _OFF_DIAGONAL = 0.1, 0.02


def camera_of_model(model: str, focal_px: float, size: Size) -> Any:
    """A COLMAP camera of a model: principal point in the centre, no distortion."""
    return load_pycolmap().Camera.create_from_model_name(0, model, focal_px, *size)


def check_known_model(model: str, model_option: str) -> None:
    """Check that COLMAP has the model.

    Raises:
        UsageError: it does not.
    """
    models = [name for name in load_pycolmap().CameraModelId.__members__ if name != "INVALID"]
    if model not in models:
        raise UsageError(f"{model_option} {model} is unknown. COLMAP's models are {', '.join(models)}.")


def check_params(
    model: str, params: Sequence[float], option: str, size: Size | None = None, exif_px: Sequence[float] = ()
) -> None:
    """Check that parameters are plausible for a model, and for photographs of a size if given.

    Args:
        option: where they come from, for messages.
        size: (width, height) px.
        exif_px: the focal lengths in px that the photographs' EXIF data tell.

    Raises:
        UsageError: they are not; the message says how they are interpreted.
    """
    camera = camera_of_model(model, 1.0, (1, 1))
    if len(params) != len(camera.params):
        raise UsageError(
            f"{model} takes {camera.params_info}: {len(camera.params)} numbers; {option} has {len(params)} numbers."
        )
    focal = [params[index] for index in camera.focal_length_idxs()]
    if not all(0 < value < float("inf") for value in focal):
        raise UsageError(f"{option}: the focal length must be positive; {model} takes {camera.params_info}.")
    fault = _fault(camera, params, focal, size, exif_px) if size and focal else None
    if not all(map(math.isfinite, params)):
        fault = "not all of them are finite"
    if fault:
        names = camera.params_info.split(", ")
        reading = ", ".join(f"{name} = {value:g}" for name, value in zip(names, params, strict=True))
        raise UsageError(f"{option} cannot be true: {model} reads {reading}, but {fault}.{_other_model(names)}")


def _fault(
    camera: Any, params: Sequence[float], focal: Sequence[float], size: Size, exif_px: Sequence[float]
) -> str | None:
    """Why parameters are implausible for photographs of a size, as the end of a sentence."""
    width, height = size
    shown, low, high = f"{width}x{height} px", *(bound * max(size) for bound in _FOCAL_PER_SIDE)
    x, y = (params[index] for index in camera.principal_point_idxs())
    if not (0 <= x <= width and 0 <= y <= height):
        return f"the principal point (cx, cy) = ({x:g}, {y:g}) is outside the photographs' {shown}"
    if not all(low <= value <= high for value in focal):
        return f"a focal length in px of photographs of {shown} is between {low:g} and {high:g}"
    radius = math.hypot(max(x, width - x), max(y, height - y)) / min(focal)
    if any(abs(params[index]) * radius**2 > _MOST_DISTORTION for index in camera.extra_params_idxs()):
        return f"such a distortion would move the corners of the photographs' {shown} far outside"
    across, down = 2 * x / width, 2 * y / height
    if abs(across - down) < _OFF_DIAGONAL and abs(across - 1) > _OTHER_SCALE:
        return (
            f"the principal point is the centre of {2 * x:.0f}x{2 * y:.0f} px, the photographs have {shown}: scale the "
            "parameters to their size"
        )
    nearest = min(exif_px, key=lambda told: abs(math.log(told / focal[0])), default=focal[0])
    if not 1 / _MOST_BESIDE_EXIF <= focal[0] / nearest <= _MOST_BESIDE_EXIF:
        return (
            f"the photographs' EXIF data give a focal length of {nearest:.0f} px. Give the parameters of these "
            "photographs, or remove the focal length from their EXIF data"
        )
    return None


def _other_model(names: Sequence[str]) -> str:
    """A more likely model with the same number of parameters in another order."""
    return " PINHOLE takes fx, fy, cx, cy: --camera-model PINHOLE." if len(names) == 4 and names[3] == "k" else ""
