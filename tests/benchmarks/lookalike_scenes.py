"""Rendered scenes with repeated parts, cameras around or along them, and the warps of an overconfident matcher.

A scene has symmetries that map it to itself except for its distinguishing details. For each pair the simulated matcher
finds the symmetry under which most is visible in both photographs, and matches nothing where only one of them shows a
detail.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from romacli.geometry.warp import cell_centres, encode_targets
from romacli.synthetic.scenes import Camera, TexturedPlane, View, inverse_depth_of, render_view
from romacli.synthetic.textures import bricks, cells, clutter, facade, noise
from romacli.types import CompactWarp, Rejected

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
import render_scene

Array = np.ndarray
Rng = np.random.Generator
SIZE, FOCAL, GRID = (640, 480), 520.0, (60, 80)
DOWN = np.array([0.0, 1.0, 0.0])
# The matcher finds the true matches unless another symmetry shows more than this factor of them; it matches nothing at
# depth edges, at glancing views and in this share of smooth blobs; a job rejects pairs below this overlap.
TRUE_BONUS, GLANCING, BLOTS, FEWEST = 1.1, 0.2, 0.05, 0.02
NOISE_PX = 0.4


@dataclass(frozen=True)
class Scene:
    """Planes and cameras; symmetries x -> R x + t of the scene, the first of which is the identity.

    is_detail: for each plane, whether it has no counterpart.
    """

    planes: list[TexturedPlane]
    is_detail: Array
    motions: list[tuple[Array, Array]]
    cameras: list[Camera]


@dataclass(frozen=True)
class Wall:
    """A wall given by its top left corner (3,), seen from the front; `out` has unit length."""

    corner: Array
    along: Array
    height: float
    out: Array


def wall_between(left: Sequence[float], right: Sequence[float], height: float) -> Wall:
    """A wall between left and right (x, z) on the floor, as seen from its front."""
    one, other = (np.array([x, 0.0, z]) for x, z in (left, right))
    along = other - one
    out = np.cross(along, DOWN)
    out /= np.linalg.norm(out)
    return Wall(one - DOWN * height, along, height, -out)


class Builder:
    """Collects the planes of a scene."""

    def __init__(self, rng: Rng) -> None:
        self.rng, self.planes, self.details, self.walls = rng, list[TexturedPlane](), list[bool](), list[Wall]()

    def face(self, wall: Wall, style: int, panels: int = 10) -> None:
        """Texture and relief of a wall; walls of the same style are identical to the last pixel."""
        rng = np.random.default_rng([style, 77])
        kind: Callable[..., Array] = (facade, bricks, facade, cells)[style % 4]
        picture = render_scene.blend(kind(rng), noise(rng), 0.3, tone=rng.uniform(95, 190, 3))
        self._add(wall, picture, (0, 0, 1, 1), 0.0)
        for _ in range(panels):
            width, height = rng.uniform(0.08, 0.2), rng.uniform(0.1, 0.3)
            place = rng.uniform(0.02, 0.98 - width), rng.uniform(0.02, 0.98 - height)
            relief = rng.uniform(0.03, 0.14) * wall.height
            self._add(wall, render_scene.painted(rng), (*place, width, height), relief)
        self.walls.append(wall)

    def details_on(self, share: float) -> None:
        """Unique pictures on a share of all walls."""
        areas = np.array([np.linalg.norm(wall.along) * wall.height for wall in self.walls])
        left = share * areas.sum()
        while left > 0:
            index = int(self.rng.choice(len(areas), p=areas / areas.sum()))
            wall, side = self.walls[index], self.rng.uniform(0.25, 0.5)
            width = side * wall.height / np.linalg.norm(wall.along)
            place = self.rng.uniform(0, max(0.0, 1 - width)), self.rng.uniform(0, 1 - side)
            picture = render_scene.blend(
                clutter(self.rng, 384), noise(self.rng, 384), 0.2, tone=self.rng.uniform(60, 220, 3)
            )
            self._add(wall, picture, (*place, min(width, 1.0), side), 0.16 * wall.height, detail=True)
            left -= (side * wall.height) ** 2

    def _add(
        self,
        wall: Wall,
        picture: Array,
        part: tuple[float, float, float, float],
        relief: float,
        *,
        detail: bool = False,
    ) -> None:
        x, y, width, height = part
        corner = wall.corner + x * wall.along + y * wall.height * DOWN + relief * wall.out
        plane = render_scene.lit(picture, corner, width * wall.along, height * wall.height * DOWN, wall.out)
        self.planes.append(plane)
        self.details.append(detail)

    def scene(self, motions: list[tuple[Array, Array]], cameras: list[Camera]) -> Scene:
        return Scene(self.planes, np.array(self.details), motions, cameras)


def turns(fold: int) -> list[tuple[Array, Array]]:
    """The rotations of a scene that looks the same from `fold` sides about the vertical through the origin."""
    return [(Rotation.from_rotvec(DOWN * 2 * np.pi * k / fold).as_matrix(), np.zeros(3)) for k in range(fold)]


def steps(step: Array, count: int) -> list[tuple[Array, Array]]:
    """The translations of `count` equal parts in a row."""
    return [(np.eye(3), k * step) for k in sorted(range(1 - count, count), key=abs)]


def camera(centre: Array, target: Array) -> Camera:
    K = np.array([[FOCAL, 0, SIZE[0] / 2], [0, FOCAL, SIZE[1] / 2], [0, 0, 1.0]])
    R = render_scene.looking_at(target, centre)
    return Camera(K, R, -R @ centre, SIZE)


def corners(sides: Sequence[float]) -> list[tuple[float, float]]:
    """Walls of a rectangle around the origin, facing outwards."""
    x, z = sides[0] / 2, sides[1] / 2
    return [(-x, -z), (x, -z), (x, z), (-x, z), (-x, -z)]


def orbit(rng: Rng, count: int, radius: float, height: float) -> list[Camera]:
    found = []
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(0, 1):
        away = radius * rng.uniform(0.92, 1.08)
        centre = np.array([away * np.sin(angle), -height * rng.uniform(0.4, 0.8), -away * np.cos(angle)])
        found.append(camera(centre, np.array([0, -height / 2, 0]) + rng.normal(0, 0.15, 3)))
    return found


def walk(rng: Rng, places: Sequence[Array], directions: Sequence[Array]) -> list[Camera]:
    """Hand-held cameras at (3,) positions, each looking in a direction."""
    return [
        camera(place + rng.normal(0, 0.12, 3), place + direction + rng.normal(0, 0.06, 3))
        for place, direction in zip(places, directions, strict=True)
    ]


def hall(fold: int) -> Callable[[Rng, bool, float], Scene]:
    def make(rng: Rng, alike: bool, share: float) -> Scene:
        builder, first = Builder(rng), 4 * int(rng.integers(1, 1000))
        sides = (6.0, 6.0) if fold == 4 else (8.0, 5.0)
        for k, (left, right) in enumerate(pairwise(corners(sides))):
            builder.face(wall_between(left, right, 3.5), first + (k if not alike else k % 2 if fold == 2 else 0))
        builder.details_on(share)
        return builder.scene(turns(fold) if alike else turns(1), orbit(rng, 24, 9.0, 3.5))

    return make


def courtyard(rng: Rng, alike: bool, share: float) -> Scene:
    builder, first = Builder(rng), 4 * int(rng.integers(1, 1000))
    for k, (right, left) in enumerate(pairwise(corners((9.0, 9.0)))):
        builder.face(wall_between(left, right, 4.0), first + (0 if alike else k))
    builder.details_on(share)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False) + rng.uniform(0, 1)
    outward = [np.array([np.sin(angle), -0.1, np.cos(angle)]) for angle in angles]
    places = [np.array([0, -1.8, 0]) - 2.5 * way * (1, 0, 1) for way in outward]
    return builder.scene(turns(4) if alike else turns(1), walk(rng, places, outward))


def houses(rng: Rng, alike: bool, share: float) -> Scene:
    builder, first, width, count = Builder(rng), 4 * int(rng.integers(1, 1000)), 4.0, 5
    for k in range(count):
        builder.face(wall_between((k * width, 0), ((k + 1) * width, 0), 4.0), first + (0 if alike else k))
    builder.details_on(share)
    along = np.linspace(0.5, width * count - 0.5, 24)
    places = [np.array([x, -1.8, -4.0]) for x in along]
    looks = [np.array([0.5 * np.sin(k), 0, 1.0]) for k in range(24)]
    return builder.scene(steps(np.array([width, 0, 0]), count if alike else 1), walk(rng, places, looks))


def facades(rng: Rng, alike: bool, share: float) -> Scene:
    """A street between two equal facades: along one of them, and back along the other."""
    builder, first, length, width = Builder(rng), 4 * int(rng.integers(1, 1000)), 12.0, 6.0
    x, z = length / 2, width / 2
    builder.face(wall_between((-x, z), (x, z), 4.0), first, 16)
    builder.face(wall_between((x, -z), (-x, -z), 4.0), first + (not alike), 16)
    builder.details_on(share)
    builder.face(wall_between((x, z), (x, -z), 3.0), first + 2)
    way = np.linspace(-4.5, 4.0, 9)
    places = [np.array([s, -1.8, -0.8]) for s in way]
    looks = [np.array([0.1, 0, 1.0])] * len(way)
    turning = np.radians(np.linspace(20, 160, 7))
    places += [np.array([2.5, -1.8, -0.8 * np.cos(a)]) for a in turning]
    looks += [np.array([np.sin(a), 0, np.cos(a)]) for a in turning]
    places += [np.array([s, -1.8, 0.8]) for s in way[::-1]]
    looks += [np.array([0.1, 0, -1.0])] * len(way)
    return builder.scene(turns(2) if alike else turns(1), walk(rng, places, looks))


def corridor(rng: Rng, alike: bool, share: float) -> Scene:
    builder, first, length, count = Builder(rng), 4 * int(rng.integers(1, 1000)), 3.0, 6
    for k in range(count):
        ends, style = (k * length, (k + 1) * length), first + (0 if alike else 2 * k)
        builder.face(wall_between((-1.6, ends[0]), (-1.6, ends[1]), 2.8), style, 5)
        builder.face(wall_between((1.6, ends[1]), (1.6, ends[0]), 2.8), style + 1, 5)
    builder.details_on(share)
    builder.face(wall_between((-1.6, count * length), (1.6, count * length), 2.8), first + 2)
    places = [np.array([0.3 * np.sin(z), -1.5, z]) for z in np.linspace(0.3, 12.0, 24)]
    looks = [np.array([0.8 * np.sin(1.3 * k), 0, 1.0]) for k in range(24)]
    return builder.scene(steps(np.array([0, 0, length]), count if alike else 1), walk(rng, places, looks))


def court(rng: Rng, alike: bool, share: float) -> Scene:
    """The example scene, in which nothing looks alike."""
    planes = render_scene.court(rng)
    return Scene(planes, np.zeros(len(planes), bool), turns(1), render_scene.cameras_on_arc(rng))


SCENES: dict[str, Callable[[Rng, bool, float], Scene]] = {
    "hall-2": hall(2),
    "hall-4": hall(4),
    "courtyard": courtyard,
    "houses": houses,
    "facades": facades,
    "corridor": corridor,
    "court": court,
}


def make_scene(name: str, share: float | None, seed: int) -> Scene:
    """share: of the walls covered by unique details; None for the same scene with walls that are all different."""
    rng = np.random.default_rng([seed, *name.encode()])
    return SCENES[name](rng, share is not None, share or 0.0)


def photograph(scene: Scene, index: int, rng: Rng) -> Array:
    """(H, W, 3) uint8 RGB with noise."""
    rgb = render_scene.take_photograph(scene.planes, scene.cameras[index], rng)
    return np.asarray(rgb)


class Simulated:
    """The output of the matcher for each pair, and the truth."""

    def __init__(self, scene: Scene, seed: int = 0) -> None:
        self.scene, self._seed = scene, seed
        self._views = [render_view(scene.planes, camera) for camera in scene.cameras]
        self._seen = [self._points(k) for k in range(len(scene.cameras))]

    def _points(self, k: int) -> tuple[Array, Array, Array]:
        """For the cells of an image, the 3D points (gh, gw, 3), their planes and the cosines of the viewing angles."""
        view, camera = self._views[k], self.scene.cameras[k]
        centres = cell_centres(GRID, SIZE).astype(float)
        column, row = centres.astype(int).transpose(2, 0, 1)
        plane = view.plane_index[row, column]
        coefficients = np.array([[*inverse_depth_of(one, camera)] for one in self.scene.planes])[plane]
        homogeneous = np.concatenate((centres, np.ones((*GRID, 1))), axis=-1)
        inverse = np.maximum((coefficients * homogeneous).sum(-1), 1e-6)
        rays = homogeneous @ np.linalg.inv(camera.K).T
        points = (rays / inverse[..., None] - camera.t) @ camera.R
        normals = np.array([one.normal / np.linalg.norm(one.normal) for one in self.scene.planes])[plane]
        squarely = np.abs(((rays @ camera.R) * normals).sum(-1)) / np.linalg.norm(rays, axis=-1)
        return points, plane, squarely

    def moved(self, i: int, j: int, motion: int) -> tuple[Array, Array]:
        """The positions in j of the cells of i after a symmetry of the scene, (gh, gw, 2) px, and which are visible
        there."""
        points, plane, squarely = self._seen[i]
        turn, shift = self.scene.motions[motion]
        camera, view = self.scene.cameras[j], self._views[j]
        x = (points @ turn.T + shift) @ camera.R.T + camera.t
        depth = x[..., 2]
        xy = x @ camera.K.T
        xy = xy[..., :2] / np.maximum(depth, 1e-6)[..., None]
        inside = (depth > 0.1) & (xy > 0).all(-1) & (xy < SIZE).all(-1) & (plane >= 0)
        column, row = (np.clip(xy[..., k], 0, SIZE[k] - 1).astype(int) for k in (0, 1))
        there = view.plane_index[row, column]
        near = np.abs(depth * view.inverse_depth[row, column] - 1) < 0.015
        seen = inside & near & (there >= 0) & (squarely > GLANCING)
        if motion:
            seen &= ~self.scene.is_detail[plane] & ~self.scene.is_detail[there]
        return np.clip(xy, -SIZE[0], 2 * SIZE[0]), seen

    def match(self, i: int, j: int) -> CompactWarp | Rejected:
        """The smaller number comes first. Unmatched blobs and noise are determined by the seed."""
        rng = np.random.default_rng([self._seed, i, j])
        shares = [self.moved(i, j, m)[1].mean() * (1 if m else TRUE_BONUS) for m in range(len(self.scene.motions))]
        best = int(np.argmax(shares))
        turn, _ = self.scene.motions[best]
        back = next(
            m
            for m, (other, shift) in enumerate(self.scene.motions)
            if np.allclose(other @ turn, np.eye(3)) and np.allclose(shift, -other @ self.scene.motions[best][1])
        )
        parts = {}
        for side, (one, other, motion) in {"AB": (i, j, best), "BA": (j, i, back)}.items():
            xy, seen = self.moved(one, other, motion)
            blots = cv2.GaussianBlur(rng.normal(size=GRID), (0, 0), 2.0)
            seen = seen & (blots > np.quantile(blots, BLOTS))
            parts[side] = encode_targets(xy + rng.normal(0, NOISE_PX, xy.shape), SIZE), seen
        overlap = float(np.mean([seen.mean() for _, seen in parts.values()]))
        if overlap < FEWEST:
            return Rejected(overlap)
        (there, seen_AB), (back_again, seen_BA) = parts["AB"], parts["BA"]
        weights = [np.where(seen, 200, 0).astype(np.uint8) for seen in (seen_AB, seen_BA)]
        return CompactWarp(there, weights[0], back_again, weights[1], SIZE, SIZE, overlap)

    def is_right(self, i: int, j: int, targets: Array, places: Array) -> Array:
        """Which matches (N, 2) of positions in i are within 4 % of the width of the true position in j, occluded or
        not."""
        xy, _ = self.moved(i, j, 0)
        column, row = ((places / SIZE * GRID[::-1]).astype(int).clip(0, np.array(GRID[::-1]) - 1)).T
        return np.linalg.norm(xy[row, column] - targets, axis=1) < 0.04 * SIZE[0]


def view_of(scene: Scene, k: int) -> View:
    return render_view(scene.planes, scene.cameras[k])
