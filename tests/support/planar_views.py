"""Compact warps between views of one plane, exact or with errors of known size, and true positions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from romacli.geometry.warp import cell_centres, encode_targets
from romacli.keypoints.aggregate import Aggregation
from romacli.types import CompactWarp, Pair, Size

NODES = 48


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., 2) transformed by a 3x3 homography."""
    homogeneous = np.concatenate((points, np.ones((*points.shape[:-1], 1))), axis=-1) @ matrix.T
    return homogeneous[..., :2] / homogeneous[..., 2:]


@dataclass(frozen=True)
class PlanarViews:
    """Views of the plane: a homography from image to plane and a size for each name.

    noise_px: standard deviation per axis of the warps, a smooth and a white part of equal variance; outliers: the
    share of each warp that is wrong by tens of px in blobs.
    """

    plane_from_image: dict[str, np.ndarray]
    sizes: dict[str, Size]
    noise_px: float = 0.0
    outliers: float = 0.0

    @property
    def pairs(self) -> list[Pair]:
        names = list(self.sizes)
        return [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]

    def truth(self, source: str, target: str, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where points of one view are in another, and which of them it sees."""
        matrix = np.linalg.inv(self.plane_from_image[target]) @ self.plane_from_image[source]
        targets = transform(matrix, points)
        return targets, ((targets > 0) & (targets < self.sizes[target])).all(axis=-1)

    def read(self, pair: Pair) -> CompactWarp:
        """The record of a pair; in reverse direction if its names are swapped."""
        forward, backward = self._direction(*pair), self._direction(*pair[::-1])
        overlap = float(np.mean([weight.mean() for _, weight in (forward, backward)])) / 255
        return CompactWarp(*forward, *backward, self.sizes[pair[0]], self.sizes[pair[1]], overlap)

    def _direction(self, source: str, target: str) -> tuple[np.ndarray, np.ndarray]:
        centres = cell_centres((NODES, NODES), self.sizes[source]).astype(np.float64)
        targets, visible = self.truth(source, target, centres)
        rng = np.random.default_rng([*source.encode(), 0, *target.encode()])
        smooth = cv2.resize(rng.normal(size=(8, 8, 2)), (NODES, NODES), interpolation=cv2.INTER_CUBIC)
        noise = (smooth / smooth.std() + rng.normal(size=smooth.shape)) * self.noise_px / np.sqrt(2)
        blob = cv2.resize(rng.normal(size=(6, 6)), (NODES, NODES), interpolation=cv2.INTER_CUBIC)
        wrong = blob > np.quantile(blob, 1 - self.outliers)
        targets = targets + noise + wrong[..., None] * rng.uniform(-60, 60, 2)
        return encode_targets(targets, self.sizes[target]), visible.astype(np.uint8) * 255

    def with_errors(self, *, noise_px: float, outliers: float = 0.0) -> PlanarViews:
        return replace(self, noise_px=noise_px, outliers=outliers)


def views_along_plane(count: int, *, size: Size = (800, 600), step: float = 80.0, seed: int = 0) -> PlanarViews:
    """Views that move along the plane by `step` px each, with slight rotation, zoom and tilt."""
    rng = np.random.default_rng(seed)
    matrices = {}
    for k in range(count):
        angle, zoom = np.deg2rad(rng.uniform(-8, 8)), rng.uniform(0.85, 1.2)
        tilt = rng.uniform(-5e-5, 5e-5, 2)
        cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
        matrices[f"view{k}.jpg"] = np.array([[cos, -sin, step * k], [sin, cos, 0], [*tilt, 1]])
    return PlanarViews(matrices, dict.fromkeys(matrices, size))


def match_errors(views: PlanarViews, result: Aggregation) -> np.ndarray:
    """The true error of all matches, in px of the second image; infinite where it does not see the point."""
    errors = []
    for (name0, name1), matches in result.matches():
        points0 = result.keypoints[name0].xy[matches.indices[:, 0]].astype(float)
        targets, visible = views.truth(name0, name1, points0)
        distance = np.linalg.norm(targets - result.keypoints[name1].xy[matches.indices[:, 1]], axis=1)
        errors.append(np.where(visible, distance, np.inf))
    return np.concatenate(errors)
