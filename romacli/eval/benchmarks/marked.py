"""Estimates evaluated by hand-marked points, and the fundamental matrices of the Image Matching Challenge."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task
from romacli.eval.benchmarks.solvers import PosedTruth
from romacli.geometry.coordinates import from_colmap_pixels, to_colmap_pixels
from romacli.geometry.epipolar import symmetric_epipolar_error
from romacli.types import DenseMatch

# The fallback of LoMa's script: a camera that moves sideways, whose epipolar lines are horizontal.
_SIDEWAYS = np.array([[0, 0, 0], [0, 0, -1], [0, 1.0, 0]])


class ScaledTruth(NamedTuple):
    """A pose, and the number of metres per unit of its translation."""

    posed: PosedTruth
    metres: float


@dataclass(frozen=True)
class FundamentalSolver:
    """A fundamental matrix by OpenCV's MAGSAC; the truth of a task is marked points (N, 4), in COLMAP px.

    The error of a marked point is the root of the summed squared distances from its epipolar lines in both pictures.
    sideways: without an estimate, the matrix of a camera moving sideways is used.
    """

    threshold: float = 0.25
    confidence: float = 0.999
    iterations: int = 100_000
    sideways: bool = False

    def __str__(self) -> str:
        fallback = ", a sideways motion where it finds none" if self.sideways else ""
        return (
            f"OpenCV findFundamentalMat, USAC_MAGSAC {self.threshold:g} px, confidence {self.confidence:g}, "
            f"{self.iterations:,} iterations{fallback}"
        )

    def errors(self, task: Task, points0: np.ndarray, points1: np.ndarray) -> list[float]:
        """In px; infinite for fewer than eight points, or if OpenCV finds nothing."""
        matrix, _ = self.estimate(points0, points1)
        if matrix is None and self.sideways:
            matrix = _SIDEWAYS
        if matrix is None:
            return [math.inf] * len(task.truth)
        return np.sqrt(symmetric_epipolar_error(matrix, task.truth[:, :2], task.truth[:, 2:])).tolist()

    def estimate(self, points0: np.ndarray, points1: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """F (3, 3) with x1^T F x0 = 0, or None; (N,) bool, its inliers."""
        import cv2

        none = None, np.zeros(len(points0), bool)
        if len(points0) < 8:
            return none
        try:
            found, mask = cv2.findFundamentalMat(
                points0, points1, cv2.USAC_MAGSAC, self.threshold, self.confidence, self.iterations
            )
        except cv2.error:
            return none
        if found is None or found.shape != (3, 3) or not np.isfinite(found).all():
            return none
        return found, mask.ravel().astype(bool)


@dataclass(frozen=True)
class ChallengeSolver:
    """A pose from a fundamental matrix, in metres, evaluated as in the Image Matching Challenge 2022.

    The truth of a task is a ScaledTruth. The translation is scaled to its true length, and its sign is ignored.
    """

    fundamental: FundamentalSolver

    def __str__(self) -> str:
        return f"{self.fundamental}; E = K1^T F K0, OpenCV recoverPose"

    def errors(self, task: Task, points0: np.ndarray, points1: np.ndarray) -> tuple[float, float]:
        """Rotation in deg and translation in m; infinite if OpenCV finds nothing."""
        import cv2

        from romacli.geometry.epipolar import rotation_angle_deg

        truth: ScaledTruth = task.truth
        K0, K1 = truth.posed.intrinsics
        matrix, agree = self.fundamental.estimate(points0, points1)
        if matrix is None or not agree.any():
            return math.inf, math.inf
        rays0, rays1 = (
            (points[agree].astype(np.float64) - K[:2, 2]) / K[[0, 1], [0, 1]]
            for points, K in ((points0, K0), (points1, K1))
        )
        try:
            _, rotation, translation, _ = cv2.recoverPose(K1.T @ matrix @ K0, rays0, rays1, np.eye(3))
        except cv2.error:
            return math.inf, math.inf
        true = truth.metres * truth.posed.translation
        found = translation.ravel() * (np.linalg.norm(true) / np.linalg.norm(translation))
        distance = min(np.linalg.norm(true - found), np.linalg.norm(true + found))
        return rotation_angle_deg(rotation.T @ truth.posed.rotation), float(distance)


@dataclass(frozen=True)
class MarkedHomographySolver:
    """A homography by OpenCV's USAC in normalised coordinates; the truth is marked points (N, 4), in COLMAP px.

    The errors are the distances of all marked points, in px of the second picture.
    """

    threshold: float = 0.001
    confidence: float = 0.99999999
    iterations: int = 100_000

    def __str__(self) -> str:
        return (
            f"OpenCV findHomography, USAC_DEFAULT {self.threshold:g} of half a picture, confidence "
            f"{self.confidence:.8f}, {self.iterations:,} iterations"
        )

    def errors(self, task: Task, points0: np.ndarray, points1: np.ndarray) -> list[float]:
        """In px; infinite for fewer than four points, or if OpenCV finds nothing."""
        import cv2

        one, other = (
            from_colmap_pixels(points.astype(np.float64), size)
            for points, size in zip((points0, points1), task.sizes, strict=True)
        )
        found = None
        with suppress(cv2.error):
            if len(one) >= 4:
                found, _ = cv2.findHomography(
                    one, other, cv2.USAC_DEFAULT, self.threshold, maxIters=self.iterations, confidence=self.confidence
                )
        if found is None:
            return [math.inf] * len(task.truth)
        marked = from_colmap_pixels(task.truth[:, :2], task.sizes[0])
        ends = np.column_stack((marked, np.ones(len(marked)))) @ found.T
        with np.errstate(divide="ignore", invalid="ignore"):
            places = to_colmap_pixels(ends[:, :2] / ends[:, 2:], task.sizes[1])
        distances = np.linalg.norm(places - task.truth[:, 2:], axis=1)
        return np.where(np.isfinite(distances), distances, np.inf).tolist()


@dataclass(frozen=True)
class MarkedWarps:
    """Warps interpolated at marked points (N, 4), in COLMAP px; both: in both directions."""

    both: bool = True

    def __str__(self) -> str:
        side = "both warps" if self.both else "the warp of the first picture"
        return f"{side} read at all marked points, certainty left out"

    def read(self, task: Task, warps: DenseMatch) -> list[float]:
        """In px of the other picture, first for the first picture's points."""
        import torch
        import torch.nn.functional as F

        check_upright(task, warps)
        sides = [(warps.warp_AB, task.truth[:, :2], task.truth[:, 2:], task.sizes)]
        if self.both and warps.warp_BA is not None:
            sides.append((warps.warp_BA, task.truth[:, 2:], task.truth[:, :2], task.sizes[::-1]))
        errors: list[float] = []
        for warp, here, there, (source, target) in sides:
            places = from_colmap_pixels(torch.from_numpy(here), source).float()
            read = F.grid_sample(
                warp.float().cpu().permute(2, 0, 1)[None],
                places[None, None],
                padding_mode="border",
                align_corners=False,
            )[0, :, 0].T
            errors += np.linalg.norm(to_colmap_pixels(read, target).numpy() - there, axis=1).tolist()
        return errors


def check_upright(task: Task, warps: DenseMatch) -> None:
    """Raise InputError if a picture was rotated before matching, as its truth is not."""
    for name, size, matched in zip(task.names, task.sizes, (warps.size_A, warps.size_B), strict=True):
        if size != matched:
            raise InputError(f"{name} is turned by its EXIF data. Unpack the benchmark's own pictures again.")
