"""Images whose cameras, where they are known to stand, look at the same part of space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from romacli.types import PairList

from .nearest import nearest, undirected

# Samples of a frustum: across, down, and in depth.
_SAMPLES = (6, 6, 4)


@dataclass(frozen=True)
class Frustum:
    """What a camera sees: x_cam = rotation (3, 3) x_world + translation (3,).

    left, top, right, bottom: the edges of the image at depth 1. near, far: depths between which there are things
    to see, in the units of the world.
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
    """Pair every image with the `num_matched` whose frusta share most with its own.

    The overlap of two frusta is the mean of the shares of each that lie in the other, at points spread evenly
    over the image and over inverse depth; nothing is known of what hides what.

    Args:
        frusta: row by row those of the names.
        max_rotation_deg: of one camera against the other, all axes counted; more makes no pair.
        min_frustum_overlap: less makes no pair; in [0, 1].
    """
    count = len(names)
    rotations = np.stack([frustum.rotation for frustum in frusta])
    translations = np.stack([frustum.translation for frustum in frusta])
    points = np.stack([_samples(frustum) for frustum in frusta])
    edges = np.array([[f.left, f.top, f.right, f.bottom, f.near, f.far] for f in frusta])
    least_trace = 1 + 2 * np.cos(np.radians(min(max_rotation_deg, 180.0)))

    def score(block: slice) -> np.ndarray:
        return np.stack([overlaps_of(index) for index in range(block.start, block.stop)])

    def overlaps_of(index: int) -> np.ndarray:
        overlaps = np.full(count, -np.inf)
        traces = np.einsum("nij,ij->n", rotations, rotations[index])
        others = np.flatnonzero(traces >= least_trace - 1e-9)
        others = others[others != index]
        there = _inside(points[index], rotations[others], translations[others], edges[others])
        back = _inside(points[others], rotations[index], translations[index], edges[index])
        overlaps[others] = (there + back) / 2
        overlaps[(overlaps < min_frustum_overlap) | (overlaps <= 0)] = -np.inf
        return overlaps

    best = nearest(score, (count, count), num_matched)
    return undirected(names, np.broadcast_to(np.arange(count)[:, None], best.shape), best)


def _samples(frustum: Frustum) -> np.ndarray:
    """Points (n, 3) of the world, spread over a frustum."""
    across, down, deep = ((np.arange(number) + 0.5) / number for number in _SAMPLES)
    x = frustum.left + across * (frustum.right - frustum.left)
    y = frustum.top + down * (frustum.bottom - frustum.top)
    z = 1 / (1 / frustum.far + deep * (1 / frustum.near - 1 / frustum.far))
    grid = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1).reshape(-1, 3)
    return (grid * [1, 1, 0] + [0, 0, 1]) * grid[:, 2:] @ frustum.rotation - frustum.rotation.T @ frustum.translation


def _inside(points: np.ndarray, rotations: np.ndarray, translations: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The share of points (..., n, 3) in each frustum; depths a factor 2 off still count."""
    camera = points @ np.swapaxes(rotations, -1, -2) + translations[..., None, :]
    left, top, right, bottom, near, far = np.moveaxis(edges[..., None], -2, 0)
    x, y, depth = np.moveaxis(camera, -1, 0)
    in_depth = (depth > near / 2) & (depth < far * 2)
    in_image = (x > left * depth) & (x < right * depth) & (y > top * depth) & (y < bottom * depth)
    return (in_depth & in_image).mean(axis=-1)
