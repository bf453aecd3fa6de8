"""Spatial distribution of points in an image: jittered seeds, minimum distances."""

from __future__ import annotations

import zlib

import numpy as np

from romacli.types import Size

# This fraction of the keypoints is distributed evenly over this many cells per side.
_CELLS = 32
_SPREAD_SHARE = 0.5


def seed_lattice(size: Size, spacing: float, *, name: str, seed: int) -> np.ndarray:
    """A jittered grid of seeds for new points, (n, 2) float32 COLMAP pixels.

    Each is moved by up to 0.3 of the spacing. The jitter depends only on the image's name and the seed.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    x, y = (np.arange(spacing / 2, side, spacing) for side in size)
    places = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    places += rng.uniform(-0.3, 0.3, places.shape) * spacing
    return np.clip(places, 0, np.nextafter(np.asarray(size, np.float32), np.float32(0))).astype(np.float32)


def close_pairs(queries: np.ndarray, points: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Every query and point within `radius` of each other, as rows of `queries` (n, 2) and `points` (m, 2).

    Points are sorted into square cells as wide as the radius, so that a query's neighbours lie in three runs.
    """
    if not len(queries) or not len(points):
        nothing = np.zeros(0, np.intp)
        return nothing, nothing
    corner = np.minimum(queries.min(axis=0), points.min(axis=0))
    query_cells = np.floor((queries - corner) / radius).astype(np.int64) + 1
    point_cells = np.floor((points - corner) / radius).astype(np.int64) + 1
    width = max(query_cells[:, 0].max(), point_cells[:, 0].max()) + 2
    keys = point_cells[:, 1] * width + point_cells[:, 0]
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    middle = (query_cells[:, 1] + np.array([[-1], [0], [1]])) * width + query_cells[:, 0]
    first = np.searchsorted(keys, middle.ravel() - 1, side="left")
    counts = np.searchsorted(keys, middle.ravel() + 1, side="right") - first
    near_queries = np.repeat(np.tile(np.arange(len(queries)), 3), counts)
    within_run = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    near_points = order[np.repeat(first, counts) + within_run]
    distance = np.linalg.norm(queries[near_queries] - points[near_points], axis=1)
    close = distance <= radius
    return near_queries[close], near_points[close]


def nearest(queries: np.ndarray, points: np.ndarray, radius: float) -> np.ndarray:
    """For each of (n, 2) queries the row of the nearest of (m, 2) points within `radius`, else -1; (n,) intp.

    Ties go to the earlier row.
    """
    near_queries, near_points = close_pairs(queries, points, radius)
    distance = np.linalg.norm(queries[near_queries] - points[near_points], axis=1)
    rows = np.full(len(queries), -1, np.intp)
    furthest_first = np.lexsort((near_points, distance))[::-1]
    rows[near_queries[furthest_first]] = near_points[furthest_first]
    return rows


def suppress(points: np.ndarray, scores: np.ndarray, radius: float) -> np.ndarray:
    """Which of (n, 2) points survive greedy non-maximum suppression; (n,) bool.

    Ties go to the earlier row. Every round decides all points without an undecided better neighbour.
    """
    rank = np.empty(len(points), np.intp)
    rank[np.argsort(-scores, kind="stable")] = np.arange(len(points))
    better, worse = close_pairs(points, points, radius)
    ordered = rank[better] < rank[worse]
    better, worse = better[ordered], worse[ordered]
    kept = np.zeros(len(points), bool)
    is_open = np.ones(len(points), bool)
    while is_open.any():
        blocked = np.zeros(len(points), bool)
        blocked[worse] = True
        settled = is_open & ~blocked
        kept |= settled
        is_open &= ~settled
        is_open[worse[settled[better]]] = False
        live = is_open[better] & is_open[worse]
        better, worse = better[live], worse[live]
    return kept


def choose_spread(points: np.ndarray, scores: np.ndarray, size: Size, count: int) -> np.ndarray:
    """The rows of `count` of (n, 2) points inside an image, ascending: the best, but spread over the image.

    Half are taken evenly from cells, the best of each first, the rest are the best remaining ones. The best alone would
    cluster where most images overlap, while poses need points everywhere.
    """
    column, row = np.minimum(points / size * _CELLS, _CELLS - 1).astype(np.intp).T
    cell = row * _CELLS + column
    best_first = np.lexsort((-scores, cell))
    starts = np.searchsorted(cell[best_first], cell[best_first])
    place = np.empty(len(points), np.intp)
    place[best_first] = np.arange(len(points)) - starts
    has_room = place <= _SPREAD_SHARE * count / _CELLS**2
    return np.sort(np.lexsort((-scores, ~has_room))[:count])
