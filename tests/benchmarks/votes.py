"""Methods that tracks are compared with: samples drawn from a dense match, kept private or merged by hloc's vote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from romacli.types import DenseMatch, Pair, Size

# RoMa thins its samples where they are dense; here density is counted in cells of this many px in both images.
_DENSITY_CELL_PX = 50
_OVERSAMPLING = 4


@dataclass(frozen=True)
class Samples:
    """Corresponding points of a pair, (n, 2) COLMAP px each, and their certainties (n,)."""

    points0: np.ndarray
    points1: np.ndarray
    certainty: np.ndarray


@dataclass(frozen=True)
class Result:
    """Keypoints (k, 2) of every image, and for every pair (m, 2) rows of them."""

    keypoints: Mapping[str, np.ndarray]
    matches: Mapping[Pair, np.ndarray]


def draw(
    match: DenseMatch, count: int, seed: list[int], *, min_certainty: float, max_cycle_px: float = np.inf
) -> Samples:
    """Draw up to `count` correspondences from both directions, spread as in RoMa.

    Above `min_certainty` all have equal weight, below it in proportion. With a limit on the forward-backward error,
    samples beyond it or below `min_certainty` are left out.
    """
    rng = np.random.default_rng(seed)
    warps = [_to_pixels(match.warp_AB, match.size_B), _to_pixels(match.warp_BA, match.size_A)]
    certainties = [match.certainty_AB.numpy(), match.certainty_BA.numpy()]
    sizes = [match.size_A, match.size_B]
    drawn = []
    for k in (0, 1):
        start = rng.uniform(0, sizes[k], (_OVERSAMPLING * count, 2)).astype(np.float32)
        certainty = _read(certainties[k], start, sizes[k])
        end = _read(warps[k], start, sizes[k])
        kept = rng.random(len(start)) < np.where(certainty > min_certainty, 1, certainty)
        if np.isfinite(max_cycle_px):
            back = _read(warps[1 - k], end, sizes[1 - k])
            kept &= (certainty > min_certainty) & (np.linalg.norm(back - start, axis=1) < max_cycle_px)
        ends = (start[kept], end[kept])
        drawn.append((*ends[:: 1 - 2 * k], certainty[kept]))
    points0, points1, certainty = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    rows = _thin(np.column_stack((points0, points1)), count, rng)
    return Samples(points0[rows], points1[rows], certainty[rows])


def _to_pixels(warp: np.ndarray, size: Size) -> np.ndarray:
    return ((np.asarray(warp) + 1) / 2 * size).astype(np.float32)


def _read(grid: np.ndarray, points: np.ndarray, size: Size) -> np.ndarray:
    """A grid over an image sampled at (n, 2) pixels, bilinear."""
    places = (points * (np.array(grid.shape[1::-1]) / size) - 0.5).astype(np.float32)
    pieces = np.array_split(places, len(places) // 30_000 + 1)  # cv2.remap takes no more than 32,767 rows
    read = [
        cv2.remap(grid, piece[:, None], None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for piece in pieces
    ]
    return np.concatenate(read).reshape(len(points), *grid.shape[2:])


def _thin(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most `count` rows of (n, 4) point pairs, thinned where they are dense."""
    _, cell, crowd = np.unique(
        (points // _DENSITY_CELL_PX).astype(np.int64), axis=0, return_inverse=True, return_counts=True
    )
    chance = 1 / (crowd[cell.ravel()] + 5.0)
    return np.argsort(rng.exponential(size=len(points)) / chance)[:count]


def keep_private(samples: Mapping[Pair, Samples]) -> Result:
    """Every pair has keypoints of its own."""
    parts: dict[str, list[np.ndarray]] = {}
    matches = {}
    for pair, drawn in samples.items():
        rows = []
        for name, points in zip(pair, (drawn.points0, drawn.points1), strict=True):
            held = parts.setdefault(name, [])
            rows.append(sum(map(len, held)) + np.arange(len(points)))
            held.append(points)
        matches[pair] = np.column_stack(rows).astype(np.int32)
    return Result({name: np.concatenate(held) for name, held in parts.items()}, matches)


def vote(samples: Mapping[Pair, Samples], *, max_keypoints: int, cell_px: int = 8, bin_px: int = 2) -> Result:
    """One keypoint for each cell, at the bin with most certainty; a sample matches where both ends are near one.

    Source: hloc's aggregation of dense matches, vectorised.
    """
    cast: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for pair, drawn in samples.items():
        for name, points in zip(pair, (drawn.points0, drawn.points1), strict=True):
            cast.setdefault(name, []).append((points, drawn.certainty))
    ballots = {name: _Ballot.count(votes, cell_px, bin_px, max_keypoints) for name, votes in cast.items()}
    matches = {}
    for (name0, name1), drawn in samples.items():
        rows0 = ballots[name0].nearest(drawn.points0, bin_px)
        rows1 = ballots[name1].nearest(drawn.points1, bin_px)
        both = (rows0 >= 0) & (rows1 >= 0)
        matches[name0, name1] = _one_to_one(np.column_stack((rows0, rows1))[both], drawn.certainty[both])
    return Result({name: ballot.points for name, ballot in ballots.items()}, matches)


@dataclass(frozen=True)
class _Ballot:
    """The keypoints (k, 2) of an image, most votes first, and the row of the one in each cell, -1 for none."""

    points: np.ndarray
    row_of_cell: np.ndarray
    cell_px: int

    @classmethod
    def count(
        cls, votes: list[tuple[np.ndarray, np.ndarray]], cell_px: int, bin_px: int, max_keypoints: int
    ) -> _Ballot:
        points, certainty = (np.concatenate(parts) for parts in zip(*votes, strict=True))
        bins, bin_of = np.unique(np.rint(points / bin_px).astype(np.int64), axis=0, return_inverse=True)
        strength = np.bincount(bin_of.ravel(), certainty)
        cells = np.rint(bins * bin_px / cell_px).astype(np.int64)
        order = np.argsort(-strength, kind="stable")
        _, first = np.unique(cells[order], axis=0, return_index=True)
        winners = order[np.sort(first)][:max_keypoints]
        row_of_cell = np.full(cells.max(axis=0) + 3, -1)
        row_of_cell[tuple(cells[winners].T)] = np.arange(len(winners))
        return cls((bins[winners] * bin_px).astype(np.float32), row_of_cell, cell_px)

    def nearest(self, points: np.ndarray, radius: float) -> np.ndarray:
        """The row of the nearest keypoint within the radius of each of (n, 2) points, -1 if there is none."""
        cells = np.rint(points / self.cell_px).astype(np.int64)
        best, distance = np.full(len(points), -1), np.full(len(points), radius, np.float64)
        for step in np.stack(np.meshgrid((-1, 0, 1), (-1, 0, 1)), axis=-1).reshape(-1, 2):
            rows = self.row_of_cell[tuple(np.clip(cells + step, 0, np.array(self.row_of_cell.shape) - 1).T)]
            apart = np.where(rows >= 0, np.linalg.norm(self.points[rows] - points, axis=1), np.inf)
            nearer = apart <= distance
            best[nearer], distance[nearer] = rows[nearer], apart[nearer]
        return best


def _one_to_one(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The matches (m, 2) that are the best of both of their keypoints."""
    rows = rows[np.argsort(-scores, kind="stable")]
    is_best = np.ones(len(rows), bool)
    for column in rows.T:
        first = np.zeros(len(rows), bool)
        first[np.unique(column, return_index=True)[1]] = True
        is_best &= first
    return rows[is_best].astype(np.int32)
