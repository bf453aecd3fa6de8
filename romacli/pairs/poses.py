"""Pairs of posed cameras with overlapping view frusta."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from romacli.types import PairList

from .nearest import NOBODY, nearest, undirected

# Samples of a frustum: across, down, and in depth.
_SAMPLES = (6, 6, 4)


@dataclass(frozen=True)
class Frustum:
    """A camera's view: x_cam = rotation (3, 3) x_world + translation (3,).

    left, top, right, bottom: the edges of the image at depth 1. near, far: depth range of the scene, in world units.
    """

    rotation: np.ndarray
    translation: np.ndarray
    left: float
    top: float
    right: float
    bottom: float
    near: float
    far: float


def posed(
    names: Sequence[str],
    frusta: Sequence[Frustum],
    *,
    num_matched: int,
    max_rotation_deg: float,
    min_frustum_overlap: float,
) -> PairList:
    """Pair every image with the `num_matched` images whose frusta overlap its own the most.

    The overlap of two frusta is the mean of the shares of each inside the other, at points spread evenly over the
    image and over inverse depth. Occlusion is not considered.

    Args:
        frusta: one per name.
        max_rotation_deg: maximum rotation between the cameras of a pair, about any axis.
        min_frustum_overlap: minimum overlap of a pair, in [0, 1].
    """
    count, many = len(names), _Frusta.of(frusta)

    def score(block: slice) -> np.ndarray:
        return np.stack([overlaps_of(index) for index in range(block.start, block.stop)])

    def overlaps_of(index: int) -> np.ndarray:
        overlaps = many.overlaps(many, index, max_rotation_deg, min_frustum_overlap)
        overlaps[index] = -np.inf
        return overlaps

    best = nearest(score, (count, count), num_matched)
    return undirected(names, np.broadcast_to(np.arange(count)[:, None], best.shape), best)


def overlapping_views(
    queries: Sequence[Frustum],
    frusta: Sequence[Frustum],
    *,
    num_matched: int,
    max_rotation_deg: float,
    min_frustum_overlap: float,
) -> list[list[int]]:
    """For each query, the `num_matched` frusta that overlap its own the most, best first; overlap as in `posed`."""
    asked, many = _Frusta.of(queries), _Frusta.of(frusta)

    def score(block: slice) -> np.ndarray:
        rows = range(block.start, block.stop)
        return np.stack([many.overlaps(asked, row, max_rotation_deg, min_frustum_overlap) for row in rows])

    best = nearest(score, (len(queries), len(frusta)), num_matched)
    return [[int(column) for column in row if column != NOBODY] for row in best]


@dataclass(frozen=True)
class _Frusta:
    """Frusta as arrays. points: (n, samples, 3) of the world; edges: (n, 6) left, top, right, bottom, near, far."""

    rotations: np.ndarray
    translations: np.ndarray
    points: np.ndarray
    edges: np.ndarray

    @classmethod
    def of(cls, frusta: Sequence[Frustum]) -> _Frusta:
        return cls(
            np.stack([frustum.rotation for frustum in frusta]),
            np.stack([frustum.translation for frustum in frusta]),
            np.stack([_samples(frustum) for frustum in frusta]),
            np.array([[f.left, f.top, f.right, f.bottom, f.near, f.far] for f in frusta]),
        )

    def overlaps(self, asked: _Frusta, index: int, max_rotation_deg: float, least: float) -> np.ndarray:
        """The overlap (n,) of one frustum of `asked` with each of these; -inf if it is too small."""
        overlaps = np.full(len(self.points), -np.inf)
        traces = np.einsum("nij,ij->n", self.rotations, asked.rotations[index])
        others = np.flatnonzero(traces >= 1 + 2 * np.cos(np.radians(min(max_rotation_deg, 180.0))) - 1e-9)
        there = _inside(asked.points[index], self.rotations[others], self.translations[others], self.edges[others])
        back = _inside(self.points[others], asked.rotations[index], asked.translations[index], asked.edges[index])
        overlaps[others] = (there + back) / 2
        overlaps[(overlaps < least) | (overlaps <= 0)] = -np.inf
        return overlaps


def _samples(frustum: Frustum) -> np.ndarray:
    """World points (n, 3) spread over a frustum."""
    across, down, deep = ((np.arange(number) + 0.5) / number for number in _SAMPLES)
    x = frustum.left + across * (frustum.right - frustum.left)
    y = frustum.top + down * (frustum.bottom - frustum.top)
    z = 1 / (1 / frustum.far + deep * (1 / frustum.near - 1 / frustum.far))
    grid = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1).reshape(-1, 3)
    return (grid * [1, 1, 0] + [0, 0, 1]) * grid[:, 2:] @ frustum.rotation - frustum.rotation.T @ frustum.translation


def _inside(points: np.ndarray, rotations: np.ndarray, translations: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The share of points (..., n, 3) in each frustum; depths up to a factor of 2 outside still count."""
    camera = points @ np.swapaxes(rotations, -1, -2) + translations[..., None, :]
    left, top, right, bottom, near, far = np.moveaxis(edges[..., None], -2, 0)
    x, y, depth = np.moveaxis(camera, -1, 0)
    in_depth = (depth > near / 2) & (depth < far * 2)
    in_image = (x > left * depth) & (x < right * depth) & (y > top * depth) & (y < bottom * depth)
    return (in_depth & in_image).mean(axis=-1)
