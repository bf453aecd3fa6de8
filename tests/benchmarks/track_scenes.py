"""Scenes with exact warps, and dense matches with errors like a network's.

A scene is about 12 units across with z up; pixels are COLMAP's. Nothing is rendered and no network runs: a warp is
computed from the geometry and then degraded by a noise model. Everything is determined by the seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import cv2
import numpy as np
import torch

from romacli.colmap.poses import Pose
from romacli.geometry.warp import cell_centres
from romacli.types import DenseMatch, Size

SCENE_RADIUS = 6.0
# Anything farther than this is sky to the matcher.
FARTHEST = 60.0
IMAGE_SIZE: Size = (1600, 1200)
FIELD_OF_VIEW_DEG = 58.0


@dataclass(frozen=True)
class Solid:
    """A box or an ellipsoid with half axes `half` (3,), rotated by `turn` rad about the vertical."""

    centre: np.ndarray
    half: np.ndarray
    turn: float
    is_box: bool

    def first_hits(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        """The distance at which each of (n, 3) rays meets the solid, in ray lengths; infinite if never."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        to_unit = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) / self.half[:, None]
        start, step = to_unit @ (origin - self.centre), rays @ to_unit.T
        enter, leave = _through_unit_box(start, step) if self.is_box else _through_unit_ball(start, step)
        return np.where((enter <= leave) & (enter > 0), enter, np.inf)


def _through_unit_box(start: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(divide="ignore"):
        inverse = 1 / step
    near, far = (-1 - start) * inverse, (1 - start) * inverse
    return np.minimum(near, far).max(axis=1), np.maximum(near, far).min(axis=1)


def _through_unit_ball(start: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    square, half_slope = (step**2).sum(axis=1), step @ start
    discriminant = half_slope**2 - square * (start @ start - 1)
    root = np.sqrt(np.maximum(discriminant, 0))
    leave = np.where(discriminant > 0, (root - half_slope) / square, -np.inf)
    return (-root - half_slope) / square, leave


@dataclass(frozen=True)
class View:
    """A pinhole camera with its principal point at the centre."""

    name: str
    pose: Pose
    focal_px: float
    size: Size

    @property
    def middle(self) -> np.ndarray:
        return np.array(self.size) / 2

    def rays(self, points: np.ndarray) -> np.ndarray:
        """World directions (n, 3) through (n, 2) pixels, with unit depth in the camera."""
        in_camera = np.column_stack(((points - self.middle) / self.focal_px, np.ones(len(points))))
        return in_camera @ self.pose.rotation

    def project(self, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (n, 2) and depths (n,) of world points; pixels are meaningless at depths up to 0."""
        in_camera = world @ self.pose.rotation.T + self.pose.translation
        depth = in_camera[:, 2]
        safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
        return self.focal_px * in_camera[:, :2] / safe[:, None] + self.middle, depth

    def contains(self, points: np.ndarray) -> np.ndarray:
        return ((points > 0) & (points < self.size)).all(axis=1)


@dataclass(frozen=True)
class Scene:
    """Solids on a curved ground."""

    solids: tuple[Solid, ...]

    def depths(self, view: View, points: np.ndarray) -> np.ndarray:
        """Depth (n,) of the scene at (n, 2) pixels; infinite in the sky."""
        rays = view.rays(points)
        depth = np.min([solid.first_hits(view.pose.centre, rays) for solid in self.solids], axis=0)
        return np.where(depth < FARTHEST, depth, np.inf)

    def follow(self, source: View, target: View, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where points that a view shows at (n, 2) pixels are in another view, and which of them it sees."""
        depth = self.depths(source, points)
        in_sky = np.isinf(depth)
        world = source.pose.centre + np.where(in_sky, FARTHEST, depth)[:, None] * source.rays(points)
        targets, target_depth = target.project(world)
        visible = ~in_sky & (target_depth > 0) & target.contains(targets)
        visible[visible] = self.depths(target, targets[visible]) > target_depth[visible] * (1 - 1e-4)
        return targets, visible


def make_scene(seed: int) -> Scene:
    """A mound with hills, domes and boxes."""
    rng = np.random.default_rng([seed, 1])
    ground = Solid(np.array([0, 0, -5.0]), np.array([70, 70, 5.0]), 0.0, False)
    hills = [
        _solid(rng, spread=0.9, half=rng.uniform([1.5, 1.5, 0.3], [3.5, 3.5, 0.9]), is_box=False) for _ in range(7)
    ]
    domes = [_solid(rng, spread=0.7, half=rng.uniform(0.5, 1.2, 3), is_box=False) for _ in range(3)]
    boxes = [
        _solid(rng, spread=0.75, half=rng.uniform([0.4, 0.4, 0.5], [1.3, 1.3, 1.8]), is_box=True) for _ in range(8)
    ]
    return Scene((ground, *hills, *domes, *boxes))


def _solid(rng: np.random.Generator, *, spread: float, half: np.ndarray, is_box: bool) -> Solid:
    """A solid at a random position in a share of the scene; boxes stand on the ground, rounded ones are half sunk."""
    x, y = rng.uniform(-spread, spread, 2) * SCENE_RADIUS
    return Solid(np.array([x, y, half[2] - 0.3 if is_box else 0.0]), half, rng.uniform(0, np.pi), is_box)


@dataclass(frozen=True)
class Layout:
    """How a scene is photographed: views on an arc around it, and up to which distance in the row they are paired."""

    num_views: int
    arc_deg: float
    reach: int

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return [(i, j) for i, j in combinations(range(self.num_views), 2) if j - i <= self.reach]


LAYOUTS = {
    "arc-16": Layout(16, 150, 5),
    "ring-16": Layout(16, 360, 16),
    "ring-8": Layout(8, 360, 8),
}


def views_around(layout: Layout, seed: int, size: Size = IMAGE_SIZE) -> list[View]:
    """Views from irregular positions at 1.5 to 2.6 scene radii, 20 to 45 degrees above the ground."""
    rng = np.random.default_rng([seed, 2])
    focal = size[0] / 2 / np.tan(np.radians(FIELD_OF_VIEW_DEG / 2))
    views = []
    for k in range(layout.num_views):
        azimuth = np.radians(layout.arc_deg * (k + rng.uniform(-0.25, 0.25)) / layout.num_views)
        elevation = np.radians(rng.uniform(20, 45))
        distance = SCENE_RADIUS * np.exp(rng.uniform(np.log(1.5), np.log(2.6)))
        direction = np.array([np.cos(azimuth), np.sin(azimuth), np.tan(elevation)]) * np.cos(elevation)
        aim = np.array([*rng.uniform(-0.12, 0.12, 2) * SCENE_RADIUS, 0.4])
        pose = _look_at(distance * direction, aim, roll=np.radians(rng.uniform(-6, 6)))
        views.append(View(f"view{k:02}.jpg", pose, focal, size))
    return views


def _look_at(centre: np.ndarray, aim: np.ndarray, *, roll: float) -> Pose:
    forward = (aim - centre) / np.linalg.norm(aim - centre)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = np.cos(roll), np.sin(roll)
    rotation = np.stack((cos * right + sin * down, cos * down - sin * right, forward))
    return Pose(rotation, -rotation @ centre)


@dataclass(frozen=True)
class NoiseModel:
    """Errors of a simulated match. Pixels are those of the target image.

    sigma_px: standard deviation per axis where two views differ little; it grows with the angle between them and with
    zoom.
    white, common: shares of that variance that vary from node to node, and that are common to all pairs of a source
    image,
        so that averaging over pairs cannot remove them; the rest is smooth and varies from pair to pair.
    correlation: correlation length of smooth noise, as a share of the grid.
    outliers: share of the grid that is wrong by tens of px in blobs, with high certainty; larger in pairs that hardly
        overlap.
    agreed: share of these blobs that the other direction confirms, as with repeated structure.
    smear: width of the blur of the warp across depth edges, as a share of the grid.
    """

    sigma_px: float = 1.0
    white: float = 0.25
    common: float = 0.15
    correlation: float = 0.032
    outliers: float = 0.10
    agreed: float = 0.4
    smear: float = 0.003


EXACT = NoiseModel(sigma_px=0.0, outliers=0.0, smear=0.0)


@dataclass(frozen=True)
class _Direction:
    """A warp in COLMAP pixels (n, n, 2), the logits of its certainty (n, n) and the nodes wrong in agreement."""

    warp: np.ndarray
    logits: np.ndarray
    agreed: np.ndarray


@dataclass(frozen=True)
class Capture:
    """Views of a scene and the output of a dense matcher with known errors, on a grid of `nodes` x `nodes`."""

    scene: Scene
    views: Sequence[View]
    pairs: Sequence[tuple[int, int]]
    noise: NoiseModel = field(default_factory=NoiseModel)
    nodes: int = 280
    seed: int = 0

    def follow(self, i: int, j: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The true positions in view j of (n, 2) points of view i, and which of them it sees."""
        return self.scene.follow(self.views[i], self.views[j], points)

    def dense(self, i: int, j: int) -> DenseMatch:
        """The match of two views as a network would return it."""
        AB, BA = self._direction(i, j), self._direction(j, i)
        (warp_AB, certainty_AB), (warp_BA, certainty_BA) = self._finish(i, j, AB, BA), self._finish(j, i, BA, AB)
        return DenseMatch(warp_AB, certainty_AB, warp_BA, certainty_BA, self.views[i].size, self.views[j].size)

    def _direction(self, i: int, j: int) -> _Direction:
        truth, visible = self.follow(i, j, self._centres(i).reshape(-1, 2).astype(np.float64))
        truth, visible = truth.reshape(self.nodes, self.nodes, 2), visible.reshape(self.nodes, self.nodes)
        # Behind the camera and at its horizon a projection diverges; outside the image the exact position does not
        # matter.
        long_side = max(self.views[j].size)
        truth = np.clip(truth, -long_side, 2 * long_side)
        if self.noise == EXACT:
            return _Direction(truth, np.where(visible, 6.0, -6.0), np.zeros_like(visible))
        return self._spoil(i, j, truth, visible)

    def _spoil(self, i: int, j: int, truth: np.ndarray, visible: np.ndarray) -> _Direction:
        noise, rng = self.noise, np.random.default_rng([self.seed, i, j, 3])
        error = self._errors(i, j, rng)
        doubt = np.linalg.norm(error, axis=-1) / max(noise.sigma_px, 1e-6)
        logits = 3.2 + self._smooth(rng, 2)[..., 0] - 0.55 * doubt
        hidden = ~visible
        error[hidden] += 12 * self._smooth(rng, 2, 2)[hidden]
        logits[hidden] = (-3.2 + 1.1 * self._smooth(rng, 2)[..., 0])[hidden]
        wrong = self._blobs(rng, min(noise.outliers * (1 + 2.5 * np.exp(-visible.mean() / 0.12)), 0.9))
        long_side = max(self.views[j].size)
        shift = 0.01 * long_side * self._smooth(rng, 5, 2) + rng.uniform(-0.05, 0.05, 2) * self.views[j].size
        error[wrong] += shift[wrong]
        logits[wrong] = (-0.3 + 1.5 * self._smooth(rng, 3)[..., 0] - 1.5 * hidden)[wrong]
        agreed = wrong & self._blobs(rng, noise.agreed, 6)
        reach = noise.smear * self.nodes
        warp, logits = (cv2.GaussianBlur(grid, (0, 0), reach) for grid in (truth + error, logits))
        return _Direction(warp, logits, agreed & (logits > -1))

    def _errors(self, i: int, j: int, rng: np.random.Generator) -> np.ndarray:
        """Errors (n, n, 2) of good matches. Some regions of an image are hard in all of its pairs."""
        noise, views = self.noise, self.views
        angle = np.degrees(np.arccos(np.clip(views[i].pose.rotation[2] @ views[j].pose.rotation[2], -1, 1)))
        zoom = self._magnification(j) / self._magnification(i)
        size = noise.sigma_px * min(1 + 0.2 * (angle / 30) ** 2, 3) * np.clip(zoom, 0.7, 2)
        of_image = np.random.default_rng([self.seed, i, 4])
        hard = np.exp(0.45 * self._smooth(of_image, 2.5))
        parts = (
            np.sqrt(1 - noise.white - noise.common) * self._smooth(rng, 1, 2),
            np.sqrt(noise.common) * self._smooth(of_image, 1, 2),
            np.sqrt(noise.white) * rng.standard_normal((self.nodes, self.nodes, 2)),
        )
        return size * hard * np.sum(parts, axis=0)

    def _magnification(self, i: int) -> float:
        """Average number of pixels per unit of the scene in a view."""
        view = self.views[i]
        depths = self.scene.depths(view, cell_centres((20, 20), view.size).reshape(-1, 2).astype(np.float64))
        return float(view.focal_px / np.median(depths[np.isfinite(depths)]))

    def _finish(self, i: int, j: int, own: _Direction, other: _Direction) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised warp and certainty of a direction, including the errors on which the other direction agrees."""
        warp, logits = own.warp.copy(), own.logits.copy()
        size_i, size_j = self.views[i].size, self.views[j].size
        landing = other.warp[other.agreed]
        inside = ((landing >= 0) & (landing < size_i)).all(axis=1)
        columns, rows = (landing[inside] * self.nodes / size_i).astype(int).T
        residual = self._centres(i)[rows, columns] - landing[inside]
        jitter = self.noise.sigma_px * self._smooth(np.random.default_rng([self.seed, i, j, 5]), 1, 2)
        warp[rows, columns] = self._centres(j)[other.agreed][inside] + residual + jitter[rows, columns]
        logits[rows, columns] = other.logits[other.agreed][inside]
        outside = ((warp < 0) | (warp > size_j)).any(axis=-1)
        certainty = np.where(outside, 0.02, 1) / (1 + np.exp(-logits))
        normalised = 2 * np.clip(warp, 0, size_j) / size_j - 1
        return torch.from_numpy(normalised.astype(np.float32)), torch.from_numpy(certainty.astype(np.float32))

    def _centres(self, i: int) -> np.ndarray:
        return cell_centres((self.nodes, self.nodes), self.views[i].size)

    def _smooth(self, rng: np.random.Generator, reach: float, channels: int = 1) -> np.ndarray:
        """Noise (n, n, channels) of unit standard deviation that varies over `reach` times the correlation length."""
        knots = max(3, round(1 / (reach * self.noise.correlation)) + 2)
        coarse = rng.standard_normal((knots, knots, channels))
        fine = cv2.resize(coarse, (self.nodes, self.nodes), interpolation=cv2.INTER_CUBIC)
        return fine.reshape(self.nodes, self.nodes, channels) / fine.std()

    def _blobs(self, rng: np.random.Generator, share: float, reach: float = 4) -> np.ndarray:
        """Smooth regions (n, n) bool that cover a share of the grid."""
        height = self._smooth(rng, reach)[..., 0]
        return height > np.quantile(height, 1 - share)


def make_capture(
    layout: Layout, seed: int, *, noise: NoiseModel | None = None, nodes: int = 280, size: Size = IMAGE_SIZE
) -> Capture:
    """A different scene for every seed, photographed in a layout and matched with errors of the same seed."""
    views = views_around(layout, seed, size)
    return Capture(make_scene(seed), views, layout.pairs, noise or NoiseModel(), nodes, seed)
