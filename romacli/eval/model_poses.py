"""How far the poses of a model are from measured ones, which may stand in a COLMAP model, Strecha's files or a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from romacli.colmap.poses import Pose, align_similarity, compare_poses, read_poses
from romacli.errors import InputError
from romacli.geometry.epipolar import relative_pose_error

from .statistics import pose_auc

THRESHOLDS_DEG = (0.1, 0.3, 1.0, 3.0, 5.0, 10.0)
SUFFIX = ".camera"
# A file of Strecha's: K by rows, three zeros, the rotation from camera to world by rows, the centre, the size.
_STRECHA_NUMBERS = 9 + 3 + 9 + 3 + 2
GRAMMAR = "A line is the name, then qw qx qy qz tx ty tz as in COLMAP's images.txt: the camera's pose, cam_from_world."
_MOST_DEFECT = 1e-3  # of R^T R - I, and of the length of a quaternion


@dataclass(frozen=True)
class ModelErrors:
    """How far a model is from the truth.

    Attributes:
        truth: how many images have a known pose; registered: those of them that the model has too, by name in `names`.
        rotation_deg: (N,) left when one rotation of the world fits all orientations best.
        position: (N,) in the truth's unit, after the best similarity; NaN below three images.
        auc: of the larger of the angles of rotation and of translation direction between two images, over all pairs
            with a known pose, by threshold in deg; a pair that the model lacks counts as wrong.
    """

    truth: int
    names: tuple[str, ...]
    rotation_deg: np.ndarray
    position: np.ndarray
    auc: dict[float, float]

    @property
    def registered(self) -> int:
        return len(self.names)

    @property
    def figures(self) -> dict[str, dict[str, float]]:
        """Mean, median and largest of both errors."""
        return {
            kind: {"mean": float(errors.mean()), "median": float(np.median(errors)), "largest": float(errors.max())}
            for kind, errors in (("rotation_deg", self.rotation_deg), ("position", self.position))
        }


def read_truth(path: Path) -> dict[str, Pose]:
    """Known poses by image name.

    Args:
        path: the folder of a COLMAP model; a folder of `NAME.camera` files; or a text of one pose a line.

    Raises:
        InputError: it is none of these, or a file or a line is no pose.
    """
    if not path.is_dir():
        return _read_lines(path)
    cameras = sorted(path.rglob(f"*{SUFFIX}"))
    if not cameras:
        return read_poses(path)
    return {file.relative_to(path).as_posix().removesuffix(SUFFIX): read_strecha(file)[1] for file in cameras}


def read_strecha(path: Path) -> tuple[np.ndarray, Pose]:
    """K (3, 3) and the pose in a file of Strecha's.

    Raises:
        InputError: it holds something else.
    """
    values = _numbers(_text(path).split(), str(path))
    if len(values) not in (_STRECHA_NUMBERS, _STRECHA_NUMBERS - 2):
        raise InputError(
            f"{path} holds {len(values)} numbers, expected {_STRECHA_NUMBERS}: K, three zeros, the rotation from "
            "camera to world, the camera's centre, width and height."
        )
    rotation, centre = values[12:21].reshape(3, 3).T, values[21:24]
    return values[:9].reshape(3, 3), _pose(rotation, -rotation @ centre, str(path))


def read_estimate(path: Path) -> dict[str, Pose]:
    """The poses of a model, or of the largest in a folder of models as a job has one.

    Raises:
        InputError: there is none.
    """
    largest = path / "0"
    return read_poses(largest if largest.is_dir() and not any(path.glob("images.*")) else path)


def evaluate_poses(poses: Mapping[str, Pose], truth: Mapping[str, Pose]) -> ModelErrors:
    """Measure poses against known ones in another frame and scale.

    Raises:
        InputError: they share no image name.
    """
    compared = compare_poses(poses, truth)
    names = compared.names
    centres = (np.array([side[name].centre for name in names]) for side in (poses, truth))
    return ModelErrors(len(truth), names, compared.rotation_deg, _distances(*centres), _areas(poses, truth))


def _distances(centres: np.ndarray, truth: np.ndarray) -> np.ndarray:
    if len(centres) < 3:
        return np.full(len(centres), np.nan)
    return np.linalg.norm(align_similarity(centres, truth).apply(centres) - truth, axis=1)


def _areas(poses: Mapping[str, Pose], truth: Mapping[str, Pose]) -> dict[float, float]:
    errors = np.array([pair_error(poses, truth, pair) for pair in combinations(sorted(truth), 2)] or [np.inf])
    return {threshold: pose_auc(errors, threshold) for threshold in THRESHOLDS_DEG}


def pair_error(poses: Mapping[str, Pose], truth: Mapping[str, Pose], pair: tuple[str, str]) -> float:
    """In deg; cameras that truly stand in one place are compared by their rotations alone."""
    if not poses.keys() >= set(pair):
        return float("inf")
    true, found = (those[pair[0]].to(those[pair[1]]) for those in (truth, poses))
    angles = relative_pose_error(
        found.rotation, found.translation, true_rotation=true.rotation, true_translation=true.translation
    )
    return max(angles) if true.translation.any() else angles[0]


def _read_lines(path: Path) -> dict[str, Pose]:
    poses: dict[str, Pose] = {}
    for number, line in _lines(path):
        name, *columns = line.rsplit(None, 7)
        place = f"{path}:{number}"
        if len(columns) != 7:
            raise InputError(f"{place}: {len(line.split())} columns, expected 8. {GRAMMAR}")
        if name in poses:
            raise InputError(f"{place}: {name} has a pose already. Leave one of them out.")
        quaternion, translation = np.split(_numbers(columns, place), [4])
        length = float(np.linalg.norm(quaternion))
        if abs(length - 1) > _MOST_DEFECT:
            raise InputError(f"{place}: the quaternion has length {length:.3g}, expected 1. {GRAMMAR}")
        poses[name] = Pose(_rotation(quaternion / length), translation)
    if not poses:
        raise InputError(f"{path} holds no poses. {GRAMMAR}")
    return poses


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}. Name the folder of a COLMAP model or of {SUFFIX} files, or a "
            "text of poses."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text. {GRAMMAR}") from error


def _numbers(columns: Sequence[str], place: str) -> np.ndarray:
    try:
        values = np.array([float(column) for column in columns])
    except ValueError as error:
        raise InputError(f"{place}: a value is no number ({error}).") from error
    if not np.isfinite(values).all():
        raise InputError(f"{place}: a value is not finite. Leave out images without a known pose.")
    return values


def _rotation(quaternion: np.ndarray) -> np.ndarray:
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
        raise InputError(f"{place}: the rotation is no rotation. Expected numbers 13 to 21 to be one, row by row.")
    u, _, vt = np.linalg.svd(rotation)
    return Pose(u @ vt, translation)
