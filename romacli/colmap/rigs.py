"""Camera rigs from COLMAP's rig file (JSON), validated here because COLMAP ignores errors in it.

Source: COLMAP's `rig_configurator`; the names of a frame's images are equal after their cameras' prefixes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romacli.errors import InputError

_KEYS = (
    "image_prefix",
    "ref_sensor",
    "cam_from_rig_rotation",
    "cam_from_rig_translation",
    "camera_model_name",
    "camera_params",
)
_IDENTITY = (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class RigCamera:
    """One camera of a rig: the images whose names begin with `prefix`, and its intrinsics if the file has them.

    cam_from_rig: a quaternion (w, x, y, z) and a translation, None if the file has none; the identity for the
    reference camera.
    """

    prefix: str
    model: str | None = None
    params: tuple[float, ...] | None = None
    cam_from_rig: tuple[tuple[float, ...], tuple[float, ...]] | None = _IDENTITY


@dataclass(frozen=True)
class RigFile:
    """A rig file: its rigs and their cameras."""

    path: Path
    rigs: tuple[tuple[RigCamera, ...], ...]

    def camera_of(self, name: str) -> RigCamera | None:
        """The camera that took an image, or None if no prefix fits."""
        return next((camera for rig in self.rigs for camera in rig if name.startswith(camera.prefix)), None)


def read_rigs(path: Path | str) -> RigFile:
    """Read COLMAP's rig file.

    Raises:
        InputError: it is missing, not JSON, or does not describe rigs.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Give --rig-config COLMAP's rig file.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}. Correct it there.") from error
    rigs = content if isinstance(content, list) else [content]
    _expect(bool(rigs), path, "it contains no rig")
    found = RigFile(path, tuple(_rig(path, rig) for rig in rigs))
    prefixes = [camera.prefix for rig in found.rigs for camera in rig]
    for prefix in prefixes:
        inside = [other for other in prefixes if other.startswith(prefix)]
        _expect(len(inside) == 1, path, f"image_prefix {prefix} is that of two cameras, or begins another's")
    return found


def require_placed(rigs: RigFile, remedy: str) -> None:
    """Check that every camera's pose in its rig is known.

    Raises:
        InputError: one is not.
    """
    for camera in (camera for rig in rigs.rigs for camera in rig):
        if camera.cam_from_rig is None:
            raise InputError(
                f"{rigs.path}: {camera.prefix} has no cam_from_rig_rotation and cam_from_rig_translation. {remedy}"
            )


def check_rigs(rigs: RigFile, names: Sequence[str]) -> int:
    """The number of frames of the rigs, after checking that every camera has images and frames are shared.

    Raises:
        InputError: a camera's prefix fits no image, or no two images of a rig are of one frame.
    """
    frames = 0
    for rig in rigs.rigs:
        taken: Counter[str] = Counter()
        for camera in rig:
            own = [name.removeprefix(camera.prefix) for name in names if name.startswith(camera.prefix)]
            if not own:
                raise InputError(
                    f"{rigs.path}: no photograph's name begins with {camera.prefix}; they are named like {names[0]}. "
                    "Correct image_prefix, which is relative to the folder of photographs."
                )
            taken.update(own)
        if len(rig) > 1 and max(taken.values()) < 2:
            raise InputError(
                f"{rigs.path}: no two photographs of {' and '.join(camera.prefix for camera in rig)} form a frame. "
                "Give photographs taken together the same name after their prefixes."
            )
        frames += len(taken)
    return frames


def _rig(path: Path, rig: Any) -> tuple[RigCamera, ...]:
    cameras = rig.get("cameras") if isinstance(rig, dict) else None
    _expect(isinstance(cameras, list) and bool(cameras), path, 'a rig is {"cameras": [...]}')
    assert isinstance(cameras, list)
    made = tuple(_camera(path, camera) for camera in cameras)
    references = sum(camera.get("ref_sensor") is True for camera in cameras)
    _expect(references == 1, path, f'{references} cameras of a rig have "ref_sensor": true, but one must')
    return made


def _camera(path: Path, camera: Any) -> RigCamera:
    _expect(isinstance(camera, dict), path, "a camera is not a JSON object")
    unknown = [key for key in camera if key not in _KEYS]
    _expect(not unknown, path, f"{', '.join(map(str, unknown))} is unknown; known are {', '.join(_KEYS)}")
    prefix = camera.get("image_prefix")
    _expect(isinstance(prefix, str) and bool(prefix), path, "a camera lacks its image_prefix")
    rotation, translation = camera.get("cam_from_rig_rotation"), camera.get("cam_from_rig_translation")
    _expect(rotation is None or _are_numbers(rotation, 4), path, f"cam_from_rig_rotation of {prefix} is not w, x, y, z")
    _expect(
        translation is None or _are_numbers(translation, 3),
        path,
        f"cam_from_rig_translation of {prefix} is not x, y, z",
    )
    _expect(
        (rotation is None) == (translation is None),
        path,
        f"{prefix} has one of rotation and translation without the other",
    )
    model, params = camera.get("camera_model_name"), camera.get("camera_params")
    _expect(model is None or isinstance(model, str), path, f"camera_model_name of {prefix} is not a name")
    _expect(params is None or _are_numbers(params), path, f"camera_params of {prefix} are not numbers")
    _expect(
        params is None or model is not None,
        path,
        f"{prefix} has camera_params without a camera_model_name to read them by",
    )
    placed = None if rotation is None or translation is None else (_floats(rotation), _floats(translation))
    if camera.get("ref_sensor") is True:
        placed = _IDENTITY
    return RigCamera(prefix, model, None if params is None else _floats(params), placed)


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, values))


def _are_numbers(values: Any, count: int | None = None) -> bool:
    numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    return numbers and (count is None or len(values) == count)


def _expect(is_so: bool, path: Path, fault: str) -> None:
    if not is_so:
        raise InputError(f"{path}: {fault}. See COLMAP's documentation of rig files.")
