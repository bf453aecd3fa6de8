"""Fuse depth maps of many images into one cloud: each surface once, where enough images agree. No file access."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from romacli.densify.options import DensifyOptions
from romacli.mapping.cameras import PosedCamera

# Maximum relative difference of depths in neighbouring cells.
_SAME_SURFACE = 0.05


@dataclass(frozen=True)
class DepthMap:
    """Depths (gh, gw) at the centres of a grid over an image, 0 where unknown, with related data.

    rays: (gh, gw, 2), points at depth 1. sigmas: (gh, gw), standard deviation as a share of the depth.
    colours: (gh, gw, 3) uint8 RGB.
    """

    camera: PosedCamera
    depths: np.ndarray
    sigmas: np.ndarray
    rays: np.ndarray
    colours: np.ndarray

    def points(self, cells: np.ndarray) -> np.ndarray:
        """World points (n, 3) of cells, given by flat index."""
        directions = np.column_stack((self.rays.reshape(-1, 2)[cells], np.ones(len(cells))))
        pose = self.camera.pose
        return (directions * self.depths.ravel()[cells, None] - pose.translation) @ pose.rotation

    def cells(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For world points (n, 3), the flat index (n,) of the cell each projects to, -1 for none, and its depth."""
        seen = points @ self.camera.pose.rotation.T + self.camera.pose.translation
        (gh, gw), (width, height) = self.depths.shape, self.camera.size
        places = self.camera.pixels(seen) * (gw / width, gh / height)
        inside = (places >= 0).all(1) & (places < (gw, gh)).all(1)
        column, row = np.where(inside[:, None], places, 0).astype(np.intp).T
        return np.where(inside, row * gw + column, -1), seen[:, 2]


@dataclass(frozen=True)
class Cloud:
    """Points: xyz (n, 3) in the world, unit normals (n, 3) facing their image, colours (n, 3) uint8 RGB.

    visible: for each point, the indices of the depth maps that agree on it.
    """

    xyz: np.ndarray
    normals: np.ndarray
    colours: np.ndarray
    visible: Sequence[np.ndarray]

    def __len__(self) -> int:
        return len(self.xyz)


def fuse(maps: Sequence[DepthMap], neighbours: Sequence[Sequence[int]], options: DensifyOptions) -> Cloud:
    """Fuse depth maps: cells that agree with another map are averaged into one point and used only once.

    neighbours: for each map, the indices of the maps it is compared with.
    """
    is_free = [found.depths.ravel() > 0 for found in maps]
    parts = []
    for index, found in enumerate(maps):
        cells = np.flatnonzero(is_free[index])
        points = found.points(cells)
        precision = _precision(found, cells)
        total, weight = points * precision[:, None], precision.copy()
        agree = np.zeros((len(neighbours[index]), len(cells)), bool)
        used: list[np.ndarray] = []
        for row, other in enumerate(neighbours[index]):
            agree[row], theirs = _agreeing(points, maps[other], options.depth_tolerance / 2)
            places = theirs[agree[row]]
            their_weight = _precision(maps[other], places)
            total[agree[row]] += maps[other].points(places) * their_weight[:, None]
            weight[agree[row]] += their_weight
            used.append(theirs)
        kept = agree.sum(0) + 1 >= options.min_views
        for row, other in enumerate(neighbours[index]):
            is_free[other][used[row][agree[row] & kept]] = False
        others = np.array(neighbours[index], np.int64)
        seen_by = [np.sort(np.append(others[column], index)) for column in agree[:, kept].T]
        normals = _normals(found).reshape(-1, 3)[cells][kept]
        colours = found.colours.reshape(-1, 3)[cells][kept]
        parts.append((total[kept] / weight[kept, None], normals, colours, seen_by))
    xyz, normals, colours = (
        np.concatenate([part[column] for part in parts] or [np.zeros((0, 3))]) for column in range(3)
    )
    return Cloud(
        xyz.astype(np.float32),
        normals.astype(np.float32),
        colours.astype(np.uint8),
        sum((part[3] for part in parts), []),
    )


def _precision(found: DepthMap, cells: np.ndarray) -> np.ndarray:
    deviations = (found.sigmas * found.depths).ravel()[cells]
    return 1 / np.maximum(deviations, 1e-12) ** 2


def _agreeing(points: np.ndarray, other: DepthMap, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Mask of points (n, 3) with the same depth in another map, and their cells there."""
    cells, depths = other.cells(points)
    theirs = np.where(cells >= 0, other.depths.ravel()[cells], 0)
    return (theirs > 0) & (np.abs(theirs - depths) < tolerance * depths), cells


def _normals(found: DepthMap) -> np.ndarray:
    """Unit normals (gh, gw, 3) from neighbouring cells on the same surface; towards the camera if there are none."""
    points = found.points(np.arange(found.depths.size)).reshape(*found.depths.shape, 3)
    towards = found.camera.pose.centre - points
    along = _difference(points, found.depths, axis=1)
    down = _difference(points, found.depths, axis=0)
    normals = np.cross(along, down)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    normals = np.where(length > 0, normals, towards)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-30)
    facing = (normals * towards).sum(-1, keepdims=True)
    return np.where(facing < 0, -normals, normals)


def _difference(points: np.ndarray, depths: np.ndarray, *, axis: int) -> np.ndarray:
    """The sum of the steps to the next and from the previous cell; steps between different surfaces count as 0."""
    steps = np.diff(points, axis=axis)
    one, other = (depths[:-1], depths[1:]) if axis == 0 else (depths[:, :-1], depths[:, 1:])
    whole = (one > 0) & (other > 0) & (np.abs(one - other) < _SAME_SURFACE * one)
    steps = np.where(whole[..., None], steps, 0)
    room = [(0, 0)] * 3
    room[axis] = (1, 1)
    padded = np.pad(steps, room)
    return padded[1:] + padded[:-1] if axis == 0 else padded[:, 1:] + padded[:, :-1]
