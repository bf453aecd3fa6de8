"""Warps as grids of target points: storage in 16 bits and interpolation between nodes.

All coordinates are COLMAP pixels of the original images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from romacli.types import CompactWarp, Size

# Targets may lie this fraction of the long side outside the image, so that warps stay smooth at its border.
_ROOM = 1 / 8
_LARGEST_CODE = np.iinfo(np.uint16).max

# Lengths and errors of options are px of an image of this long side.
REFERENCE_LONG_SIDE = 1600
# The error of a good match: a target with this error has weight 1/2.
GOOD_ERROR = 0.5 / REFERENCE_LONG_SIDE

# Four nodes form one surface only if they are nearly a parallelogram and close together: depth edges and wrong matches
# bend by more than this fraction of a cell, or extend over more than this number of cells. Tuned on rendered scenes.
# Cells are those of the target image, so that images of different resolutions are treated alike.
_MAX_BEND_CELLS = 0.35
_MAX_SPAN_CELLS = 6.0


def cell_centres(shape: tuple[int, int], size: Size) -> np.ndarray:
    """Cell centres of a (gh, gw) grid over an image, as (gh, gw, 2) float32 COLMAP pixels."""
    x = (np.arange(shape[1], dtype=np.float32) + 0.5) * (size[0] / shape[1])
    y = (np.arange(shape[0], dtype=np.float32) + 0.5) * (size[1] / shape[0])
    return np.stack(np.meshgrid(x, y), axis=-1).astype(np.float32)


def target_margin(size: Size) -> float:
    """The maximum distance of stored targets outside an image in px: one eighth of the long side."""
    return _ROOM * max(size)


def target_step(size: Size) -> float:
    """The step of stored targets in px: 16 bits spread over long side and margins (0.03 px at 1600)."""
    return (1 + 2 * _ROOM) * max(size) / _LARGEST_CODE


def encode_targets(xy: np.ndarray, size: Size) -> np.ndarray:
    """Round targets (..., 2) in COLMAP pixels to uint16 steps, clamped to the margin."""
    steps = np.rint((xy + target_margin(size)) / target_step(size))
    return np.clip(steps, 0, _LARGEST_CODE).astype(np.uint16)


def decode_targets(steps: np.ndarray, size: Size) -> np.ndarray:
    """Convert uint16 steps (..., 2) to float32 COLMAP pixels, exact within half a step."""
    return steps * np.float32(target_step(size)) - np.float32(target_margin(size))


def precisions_of(weights: np.ndarray, size: Size) -> np.ndarray:
    """Inverse variance per axis, 1 / px², of targets with weights (n,) in [0, 1], in an image of this size."""
    weights = np.minimum(weights, 1 - 1e-6)
    return 2 * weights / (1 - weights) / (GOOD_ERROR * max(size)) ** 2


@dataclass(frozen=True)
class WarpSample:
    """A warp sampled at n points.

    targets: (n, 2) float32 COLMAP pixels of the target image; weights: (n,) float32 in [0, 1], 0 where the warp is
    unusable; jacobians: (n, 2, 2) float32, target px per source px, or None if not requested.
    """

    targets: np.ndarray
    weights: np.ndarray
    jacobians: np.ndarray | None = None


class WarpField:
    """One direction of a stored warp, readable at any pixel of the source image.

    Between four nodes the warp is bilinear, and it is extrapolated by half a cell beyond the outermost nodes. The
    weight is 0 outside the image, next to unusable nodes, and where the nodes do not form one surface. `precise`
    is whether the network's predicted precision is part of the weights.
    """

    def __init__(
        self, targets: np.ndarray, weights: np.ndarray, *, source_size: Size, target_size: Size, precise: bool = False
    ) -> None:
        """Prepare (gh, gw, 2) targets in COLMAP pixels and (gh, gw) weights in [0, 1] for reading."""
        if min(weights.shape) < 2:
            raise ValueError(f"a warp of {weights.shape} nodes cannot be interpolated, expected at least (2, 2)")
        gh, gw = weights.shape
        self.source_size = source_size
        self.target_size = target_size
        self.precise = precise
        self._shape = gh, gw
        cell = max(target_size[0] / gw, target_size[1] / gh)
        surfaces = [_Surface.through(np.asarray(targets[..., axis], np.float32)) for axis in (0, 1)]
        whole = surfaces[0].is_whole(cell) & surfaces[1].is_whole(cell)
        self._surfaces = [surface.flattened() for surface in surfaces]
        self._weights = np.where(whole, _smallest_of_four(weights), 0).astype(np.float32).ravel()

    def at(self, points: np.ndarray, *, with_jacobian: bool = False) -> WarpSample:
        """Sample the warp at (n, 2) COLMAP pixels of the source image."""
        gh, gw = self._shape
        (width, height), (x, y) = self.source_size, np.asarray(points, np.float32).T
        per_px_x, per_px_y = np.float32(gw / width), np.float32(gh / height)
        column, a = _locate(x * per_px_x, gw)
        row, b = _locate(y * per_px_y, gh)
        patch = row * (gw - 1) + column
        read = [surface.read(patch, a, b) for surface in self._surfaces]
        inside = (x >= 0) & (y >= 0) & (x <= width) & (y <= height)
        targets = np.stack([value for value, _, _ in read], axis=1)
        weights = self._weights[patch] * inside
        if not with_jacobian:
            return WarpSample(targets, weights)
        slopes = [np.stack((along * per_px_x, down * per_px_y), axis=1) for _, along, down in read]
        return WarpSample(targets, weights, np.stack(slopes, axis=1))

    def scatter(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Sample up to `count` different usable cells by weight, and a random point in each.

        Returns:
            (n, 2) float32 COLMAP pixels of the source image.
        """
        gh, gw = self._shape
        usable = np.flatnonzero(self._weights)
        # Weighted sampling without replacement: the smallest exponential waiting times.
        waits = rng.exponential(size=len(usable)) / self._weights[usable]
        patches = usable[np.argsort(waits)[:count]]
        nodes = np.stack((patches % (gw - 1), patches // (gw - 1)), axis=1)
        places = (nodes + 0.5 + rng.random(nodes.shape)) * (np.array(self.source_size) / (gw, gh))
        return places.astype(np.float32)


@dataclass(frozen=True)
class _Surface:
    """One target coordinate as patches between four nodes each: origin + a along + b (down + a twist)."""

    origin: np.ndarray
    along: np.ndarray
    down: np.ndarray
    twist: np.ndarray

    @classmethod
    def through(cls, nodes: np.ndarray) -> _Surface:
        """The (gh - 1, gw - 1) patches through (gh, gw) values."""
        along, down = np.diff(nodes, axis=1), np.diff(nodes, axis=0)
        return cls(nodes[:-1, :-1], along[:-1], down[:, :-1], np.diff(along, axis=0))

    def is_whole(self, cell: float) -> np.ndarray:
        """Mask of patches that are one surface rather than torn across a depth edge."""
        limit = _MAX_SPAN_CELLS * cell
        diagonal, other_diagonal = self.along + self.down + self.twist, self.along - self.down
        spans = (np.abs(diagonal) < limit) & (np.abs(other_diagonal) < limit)
        return spans & (np.abs(self.twist) < _MAX_BEND_CELLS * cell)

    def flattened(self) -> _Surface:
        """The same patches in one row, to be indexed."""
        return _Surface(self.origin.ravel(), self.along.ravel(), self.down.ravel(), self.twist.ravel())

    def read(self, patch: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The value at (a, b) within patches, and its slopes per cell in both directions."""
        twist = self.twist[patch]
        along, down = self.along[patch] + b * twist, self.down[patch] + a * twist
        return self.origin[patch] + a * self.along[patch] + b * down, along, down


def _locate(cells: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The patch of each position, in cells along one axis, and the offset from its first node."""
    node = cells - np.float32(0.5)
    patch = np.clip(np.floor(node), 0, count - 2).astype(np.int32)
    return patch, node - patch.astype(np.float32)


def _smallest_of_four(nodes: np.ndarray) -> np.ndarray:
    rows = np.minimum(nodes[:-1], nodes[1:])
    return np.minimum(rows[:, :-1], rows[:, 1:])


def warp_fields(record: CompactWarp) -> tuple[WarpField, WarpField]:
    """The two directions of a stored pair, A to B and B to A."""

    def field(steps: np.ndarray, weights: np.ndarray, source: Size, target: Size) -> WarpField:
        targets, weights = decode_targets(steps, target), weights / np.float32(255)
        return WarpField(targets, weights, source_size=source, target_size=target, precise=record.precise)

    forward = field(record.target_AB, record.weight_AB, record.size_A, record.size_B)
    backward = field(record.target_BA, record.weight_BA, record.size_B, record.size_A)
    return forward, backward


def lie_in(cells: np.ndarray, points: np.ndarray, size: Size) -> np.ndarray:
    """Mask (...) of points (..., 2) in COLMAP pixels inside the marked cells of a (gh, gw) bool grid over an image."""
    shape = np.array(cells.shape)
    place = np.floor(np.asarray(points, np.float64)[..., ::-1] * shape / (size[1], size[0])).astype(np.intp)
    row, column = np.moveaxis(np.clip(place, 0, shape - 1), -1, 0)
    return cells[row, column]


def masked(record: CompactWarp, kept_A: np.ndarray | None, kept_B: np.ndarray | None) -> CompactWarp:
    """A stored pair without cells that are masked or lead to masked cells, in either direction.

    Args:
        kept_A, kept_B: (gh, gw) bool, the cells of each image to keep; None keeps all.
    """

    def left(weights: np.ndarray, targets: np.ndarray, size: Size, *kept: np.ndarray | None) -> np.ndarray:
        here, there = kept
        if here is not None:
            weights = weights * here
        return weights if there is None else weights * lie_in(there, decode_targets(targets, size), size)

    weight_AB = left(record.weight_AB, record.target_AB, record.size_B, kept_A, kept_B)
    weight_BA = left(record.weight_BA, record.target_BA, record.size_A, kept_B, kept_A)
    overlap = float(np.mean([np.count_nonzero(weights) / weights.size for weights in (weight_AB, weight_BA)]))
    return replace(record, weight_AB=weight_AB, weight_BA=weight_BA, overlap=overlap)


def compose(points: np.ndarray, fields: Sequence[WarpField]) -> WarpSample:
    """Follow (n, 2) points through consecutive warps; the weight is the minimum along the way."""
    weights = np.ones(len(points), np.float32)
    for field in fields:
        sample = field.at(points)
        points, weights = sample.targets, np.minimum(weights, sample.weights)
    return WarpSample(points, weights)
