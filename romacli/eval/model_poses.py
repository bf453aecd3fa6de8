"""Errors of the poses of a model against measured ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from romacli.colmap.poses import Pose, align_similarity, compare_poses, read_poses
from romacli.geometry.epipolar import relative_pose_error
from romacli.names import respelled

from .statistics import pose_auc

THRESHOLDS_DEG = (0.1, 0.3, 1.0, 3.0, 5.0, 10.0)


@dataclass(frozen=True)
class ModelErrors:
    """Errors of a model.

    Attributes:
        truth: number of images with a known pose; names: those of them that the model has.
        rotation_deg: (N,) after the rotation of the world that best fits all orientations.
        position: (N,) in the truth's unit, after the best similarity; NaN for fewer than three images.
        auc: of the larger of the angles of rotation and of translation direction between two images, over all pairs
            with known poses, by threshold in deg; pairs missing from the model count as wrong.
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
        """Mean, median and maximum of both errors."""
        return {
            kind: {"mean": float(errors.mean()), "median": float(np.median(errors)), "largest": float(errors.max())}
            for kind, errors in (("rotation_deg", self.rotation_deg), ("position", self.position))
        }


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
    poses = respelled(poses, truth)
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
    """The error in deg; cameras at the same position are compared by rotation only."""
    if not poses.keys() >= set(pair):
        return float("inf")
    true, found = (those[pair[0]].to(those[pair[1]]) for those in (truth, poses))
    angles = relative_pose_error(
        found.rotation, found.translation, true_rotation=true.rotation, true_translation=true.translation
    )
    return max(angles) if true.translation.any() else angles[0]
