"""Depth of one image from its warps into other images with known poses. Pure functions without file access.

Rays are points at depth 1 in a camera's own frame. For a ray r of this image and a warp's target u in another, depth d
solves (u q3 - q12) d = t12 - u t3 with q = R r, where (R, t) maps this camera's frame to the other's
(Hartley and Zisserman, Multiple View Geometry, 12.2, with the first camera's ray fixed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from romacli.colmap.poses import Pose
from romacli.densify.options import DensifyOptions


@dataclass(frozen=True)
class Sight:
    """Another image's observations of n rays of this one.

    pose: from this camera's frame to the other's. targets: (n, 2) rays in the other, NaN where the warp has none.
    weights: (n,) in [0, 1]. per_px: px per unit of the other's rays, at a long side of 1600.
    """

    pose: Pose
    targets: np.ndarray
    weights: np.ndarray
    per_px: float


def depth_by_agreement(
    rays: np.ndarray, sights: Sequence[Sight], options: DensifyOptions
) -> tuple[np.ndarray, np.ndarray]:
    """The depth of each ray (n, 2) on which most sights agree, refined by all that agree, and its standard deviation.

    A sight agrees with a depth if its reprojection error is within `max_error` and its own depth is the same
    within `depth_tolerance`.

    Returns:
        (n,) depths, 0 where views do not agree; (n,) deviations as a share of the depth, for target errors of 1 px at
        1600.
    """
    best, score = np.zeros(len(rays)), np.zeros(len(rays))
    if not sights:
        return best, score
    lines = [_Line.of(rays, sight, options.min_angle_deg) for sight in sights]
    for line in lines:
        votes = sum(_votes(line.depths, other, options) for other in lines)
        better = (line.depths > 0) & (votes > score)
        best, score = np.where(better, line.depths, best), np.where(better, votes, score)
    supports = np.stack([_votes(best, line, options) > 0 for line in lines])
    depths, sigmas = _refined(best, supports, lines)
    enough = (supports.sum(0) >= options.min_views - 1) & (depths > 0) & (sigmas <= options.max_uncertainty)
    return np.where(enough, depths, 0), np.where(enough, sigmas, 0)


@dataclass(frozen=True)
class _Line:
    """A sight's equations a d = b for n rays, their solutions (0 if there is none), and its scale."""

    a: np.ndarray
    b: np.ndarray
    away: np.ndarray
    offset: float
    depths: np.ndarray
    weights: np.ndarray
    per_px: float

    @classmethod
    def of(cls, rays: np.ndarray, sight: Sight, min_angle_deg: float) -> _Line:
        directions = np.column_stack((rays, np.ones(len(rays))))
        turned, moved = directions @ sight.pose.rotation.T, sight.pose.translation
        a = sight.targets * turned[:, 2:] - turned[:, :2]
        b = moved[:2] - sight.targets * moved[2]
        with np.errstate(divide="ignore", invalid="ignore"):
            depths = (a * b).sum(1) / (a * a).sum(1)
        points = turned * depths[:, None] + moved
        is_sound = (depths > 0) & (points[:, 2] > 0) & (sight.weights > 0)
        is_sound &= _angles_deg(points, points - moved) > min_angle_deg
        depths = np.where(is_sound, depths, 0)
        return cls(a, b, turned[:, 2], float(moved[2]), depths, sight.weights, sight.per_px)

    def errors(self, depths: np.ndarray) -> np.ndarray:
        """Reprojection errors (n,) of points at these depths, in px at 1600."""
        with np.errstate(divide="ignore", invalid="ignore"):
            off = (self.a * depths[:, None] - self.b) / (self.away * depths + self.offset)[:, None]
        return self.per_px * np.hypot(off[:, 0], off[:, 1])


def _angles_deg(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Angles (n,) in degrees between vectors (n, 3)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    return np.degrees(np.arccos(np.clip(np.nan_to_num(cosines, nan=1.0), -1, 1)))


def _votes(depths: np.ndarray, line: _Line, options: DensifyOptions) -> np.ndarray:
    """A sight's votes for depths (n,): 0 if it disagrees or has no target, else 1/2 to 1 by its error."""
    with np.errstate(invalid="ignore"):
        errors = line.errors(depths)
        agrees = (depths > 0) & (line.depths > 0) & (errors < options.max_error)
        agrees &= np.abs(line.depths - depths) < options.depth_tolerance * depths
        return np.where(agrees, 1 - 0.5 * errors / options.max_error, 0)


def _refined(depths: np.ndarray, supports: np.ndarray, lines: Sequence[_Line]) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares depths in px over all agreeing sights, and their standard deviation as a share of the depth."""
    top, bottom = np.zeros(len(depths)), np.zeros(len(depths))
    for line, agrees in zip(lines, supports, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = line.weights * (line.per_px / (line.away * depths + line.offset)) ** 2
        top += np.where(agrees, scale * (line.a * line.b).sum(1), 0)
        bottom += np.where(agrees, scale * (line.a * line.a).sum(1), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(bottom > 0, top / bottom, 0)
        return found, np.where(found > 0, 1 / np.sqrt(bottom) / found, 0)
