"""Read poses from a COLMAP model, Strecha's camera files, or a text file with one pose per line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from romacli.disk import read_lines, read_text
from romacli.errors import InputError

from .poses import Pose, read_poses

SUFFIX = ".camera"
# A camera file by Strecha: K by rows, three zeros, the rotation from camera to world by rows, the centre, the size.
_STRECHA_NUMBERS = 9 + 3 + 9 + 3 + 2
GRAMMAR = "A line is the name, then qw qx qy qz tx ty tz as in COLMAP's images.txt: the camera's pose, cam_from_world."
_WANTED = f"the folder of a COLMAP model or of {SUFFIX} files, or a text file of poses"
_MOST_DEFECT = 1e-3  # of R^T R - I, and of the length of a quaternion


def read_written_poses(path: Path) -> dict[str, Pose]:
    """Known poses by image name.

    Args:
        path: the folder of a COLMAP model; a folder of `NAME.camera` files; or a text file with one pose per line.

    Raises:
        InputError: it is none of these, or a file or line is invalid.
    """
    if not path.is_dir():
        return _read_lines(path)
    cameras = sorted(path.rglob(f"*{SUFFIX}"))
    if not cameras:
        return read_poses(path)
    return {file.relative_to(path).as_posix().removesuffix(SUFFIX): read_strecha(file)[1] for file in cameras}


def read_strecha(path: Path) -> tuple[np.ndarray, Pose]:
    """Read K (3, 3) and the pose from one of Strecha's camera files.

    Raises:
        InputError: it contains anything else.
    """
    values = _numbers(read_text(path, _WANTED).split(), str(path))
    if len(values) not in (_STRECHA_NUMBERS, _STRECHA_NUMBERS - 2):
        raise InputError(
            f"{path} contains {len(values)} numbers, expected {_STRECHA_NUMBERS}: K, three zeros, the rotation from "
            "camera to world, the camera's centre, width and height."
        )
    rotation, centre = values[12:21].reshape(3, 3).T, values[21:24]
    return values[:9].reshape(3, 3), _pose(rotation, -rotation @ centre, str(path))


def _read_lines(path: Path) -> dict[str, Pose]:
    poses: dict[str, Pose] = {}
    for number, line in read_lines(path, _WANTED):
        name, *columns = line.rsplit(None, 7)
        place = f"{path}:{number}"
        if len(columns) != 7:
            raise InputError(f"{place}: {len(line.split())} columns, expected 8. {GRAMMAR}")
        if name in poses:
            raise InputError(f"{place}: {name} already has a pose. Remove one of them.")
        quaternion, translation = np.split(_numbers(columns, place), [4])
        length = float(np.linalg.norm(quaternion))
        if abs(length - 1) > _MOST_DEFECT:
            raise InputError(f"{place}: the quaternion has length {length:.3g}, expected 1. {GRAMMAR}")
        poses[name] = Pose(rotation_of(quaternion / length), translation)
    if not poses:
        raise InputError(f"{path} contains no poses. {GRAMMAR}")
    return poses


def _numbers(columns: Sequence[str], place: str) -> np.ndarray:
    try:
        values = np.array([float(column) for column in columns])
    except ValueError as error:
        raise InputError(f"{place}: a value is not a number ({error}).") from error
    if not np.isfinite(values).all():
        raise InputError(f"{place}: a value is not finite. Omit images without a known pose.")
    return values


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """The matrix (3, 3) of a unit quaternion w, x, y, z."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _pose(rotation: np.ndarray, translation: np.ndarray, place: str) -> Pose:
    defect = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if defect > _MOST_DEFECT or np.linalg.det(rotation) < 0:
        raise InputError(f"{place}: the rotation is invalid. Numbers 13 to 21 must be a rotation matrix, row by row.")
    u, _, vt = np.linalg.svd(rotation)
    return Pose(u @ vt, translation)
