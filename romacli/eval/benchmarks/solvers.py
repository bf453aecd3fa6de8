"""The estimators of the papers' evaluations, with their settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from romacli.colmap.poses import Pose
from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task
from romacli.types import Size

# Maximum offset of the principal point of an undistorted photograph from the centre, as a share of the side.
_OFF_CENTRE = 0.1
_ROUNDS = 10


class PosedTruth(NamedTuple):
    """K (3, 3) of both pictures in px, and cam1_from_cam0: rotation (3, 3), translation (3,).

    radial: the first term of both pictures' distortion, as in COLMAP's SIMPLE_RADIAL.
    """

    intrinsics: tuple[np.ndarray, np.ndarray]
    rotation: np.ndarray
    translation: np.ndarray
    radial: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def between(
        cls, one: tuple[np.ndarray, Pose], other: tuple[np.ndarray, Pose], radial: tuple[float, float] = (0.0, 0.0)
    ) -> PosedTruth:
        """From K and pose of each picture, both in the same world."""
        pose = one[1].to(other[1])
        return cls((one[0], other[0]), pose.rotation, pose.translation, radial)


@dataclass(frozen=True)
class EssentialSolver:
    """The relative pose from an essential matrix by OpenCV's RANSAC, as in evaluations of DKM and RoMa.

    Attributes:
        side: "long" or "short": pictures, and K, are scaled so that this side has `px` px.
        shift: subtracted from the scaled coordinates, whose origin is the picture's corner.
        threshold: of an inlier, in px of the scaled pictures.

    The error is the larger of the angles of rotation and of translation direction, the latter up to sign, in deg.
    """

    side: str
    px: int
    shift: float = 0.0
    threshold: float = 0.5
    confidence: float = 0.99999

    def __str__(self) -> str:
        shift = f", coordinates less {self.shift:g} px" if self.shift else ""
        return (
            f"OpenCV findEssentialMat, RANSAC {self.threshold:g} px at a {self.side} side of {self.px} px{shift}, "
            f"confidence {self.confidence:g}"
        )

    def errors(self, task: Task, points0: np.ndarray, points1: np.ndarray) -> tuple[float]:
        """In deg; infinite for fewer than five points, or if OpenCV finds nothing."""
        from romacli.geometry.epipolar import relative_pose_error

        truth: PosedTruth = task.truth
        scales = [self.px / (max(size) if self.side == "long" else min(size)) for size in task.sizes]
        Ks = [scale * K for scale, K in zip(scales, truth.intrinsics, strict=True)]
        rays0, rays1 = (
            _undistorted(
                (scale * points.astype(np.float64) - self.shift - K[:2, 2]) @ np.linalg.inv(K[:2, :2]).T, radial
            )
            for points, scale, K, radial in zip((points0, points1), scales, Ks, truth.radial, strict=True)
        )
        # Half of the averaged entries are zero, so the sum is about one focal length.
        found = self._pose(rays0, rays1, self.threshold / sum(np.abs(K[:2, :2]).mean() for K in Ks))
        if found is None:
            return (math.inf,)
        rotation, direction = relative_pose_error(
            *found, true_rotation=truth.rotation, true_translation=truth.translation
        )
        return (max(rotation, min(direction, 180 - direction)),)

    def _pose(self, rays0: np.ndarray, rays1: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray] | None:
        """The pose, from any of the matrices found, with the most points in front of both cameras."""
        import cv2

        if len(rays0) < 5:
            return None
        camera, best, most = np.eye(3), None, 0
        try:
            matrices, mask = cv2.findEssentialMat(
                rays0, rays1, camera, method=cv2.RANSAC, prob=self.confidence, threshold=threshold
            )
            for matrix in [] if matrices is None else np.split(matrices, len(matrices) // 3):
                count, rotation, translation, *_ = cv2.recoverPose(matrix, rays0, rays1, camera, 1e9, mask=mask.copy())
                if count > most:
                    best, most = (rotation, translation.ravel()), count
        except cv2.error:
            return None
        return best


def _undistorted(rays: np.ndarray, radial: float) -> np.ndarray:
    """Undistort rays (N, 2): the fixed point of x (1 + k |x|^2) = distorted."""
    straight = rays
    for _ in range(_ROUNDS if radial else 0):
        straight = rays / (1 + radial * (straight**2).sum(1, keepdims=True))
    return straight


@dataclass(frozen=True)
class HomographySolver:
    """A homography by OpenCV's RANSAC; the truth of a task is H (3, 3), where (0, 0) is the centre of the first pixel.

    The error is the mean distance of the first picture's four corners, in px of the second picture scaled to a short
    side of `px`; `threshold` is in the same unit.
    """

    px: int = 480
    threshold: float = 3.0
    confidence: float = 0.99999

    def __str__(self) -> str:
        return (
            f"OpenCV findHomography, RANSAC {self.threshold:g} px at a short side of {self.px} px, "
            f"confidence {self.confidence:g}"
        )

    def errors(self, task: Task, points0: np.ndarray, points1: np.ndarray) -> tuple[float]:
        """In px; infinite for fewer than four points, or if OpenCV finds nothing."""
        import cv2

        from romacli.geometry.coordinates import colmap_to_hloc

        if len(points0) < 4:
            return (math.inf,)
        scale = min(task.sizes[1]) / self.px
        try:
            found, _ = cv2.findHomography(
                colmap_to_hloc(points0.astype(np.float64)),
                colmap_to_hloc(points1.astype(np.float64)),
                method=cv2.RANSAC,
                ransacReprojThreshold=self.threshold * scale,
                confidence=self.confidence,
            )
        except cv2.error:
            found = None
        return (math.inf if found is None else corner_error(found, task.truth, task.sizes[0]) / scale,)


def corner_error(found: np.ndarray, truth: np.ndarray, size: Size) -> float:
    """The mean distance in px between the images of the centres of a picture's corner pixels under two homographies."""
    right, low = size[0] - 1, size[1] - 1
    corners = np.array([[0, 0, 1], [0, low, 1], [right, 0, 1], [right, low, 1]], np.float64)
    ends = [corners @ matrix.T for matrix in (found, truth)]
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (end[:, :2] / end[:, 2:] for end in ends)
        distance = float(np.linalg.norm(one - other, axis=1).mean())
    return distance if math.isfinite(distance) else math.inf


def check_intrinsics(root: Path, tasks: list[Task]) -> None:
    """Raise InputError if most principal points are far from the centres of their pictures."""
    off = [
        max(abs(K[axis, 2] / size[axis] - 0.5) for axis in (0, 1))
        for task in tasks
        for K, size in zip(task.truth.intrinsics, task.sizes, strict=True)
    ]
    if np.median(off) > _OFF_CENTRE:
        K, size = tasks[0].truth.intrinsics[0], tasks[0].sizes[0]
        raise InputError(
            f"The intrinsics in {root} are of another resolution than its pictures: {tasks[0].names[0]} is "
            f"{size[0]} x {size[1]} px, and its principal point is ({K[0, 2]:.0f}, {K[1, 2]:.0f}). "
            "Unpack the pictures at their original size."
        )
