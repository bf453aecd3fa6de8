"""Map points in a query: each observation transferred by its image's warp, then merged by agreement. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sighting:
    """Map points that one map image's warp transfers to a query.

    ids: (n,) of the points. places: (n, 2) COLMAP pixels of the query. weights: (n,) in (0, 1].
    """

    ids: np.ndarray
    places: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Places:
    """Map points with one position each in the query: ids (n,), places (n, 2), number of agreeing images (n,)."""

    ids: np.ndarray
    places: np.ndarray
    views: np.ndarray

    def best(self, count: int) -> Places:
        """At most `count` points, those that most images agree on."""
        chosen = np.argsort(-self.views, kind="stable")[:count]
        return Places(self.ids[chosen], self.places[chosen], self.views[chosen])


def attach(sightings: Sequence[Sighting], tolerance_px: float) -> Places:
    """Merge each point's positions: the weighted mean of those within a tolerance of the best-supported one.

    Points on which less than half of the weight agrees are left out.
    """
    if not sightings:
        return Places(np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros(0, np.int64))
    ids, places, weights = (
        np.concatenate([getattr(sighting, part) for sighting in sightings]) for part in ("ids", "places", "weights")
    )
    points, group = np.unique(ids, return_inverse=True)
    order = np.argsort(group, kind="stable")
    group, places, weights = group[order], places[order], weights[order]
    best = _medoids(group, places, weights, tolerance_px)
    near = np.hypot(*(places - places[best[group]]).T) <= tolerance_px
    held = np.bincount(group, weights * near)
    means = np.column_stack([np.bincount(group, weights * near * axis) for axis in places.T]) / held[:, None]
    agreed = held / np.bincount(group, weights) > 0.5
    return Places(points[agreed], means[agreed], np.bincount(group, near)[agreed])


def _medoids(group: np.ndarray, places: np.ndarray, weights: np.ndarray, tolerance_px: float) -> np.ndarray:
    """For each group of sorted rows, the row with the most weight within the tolerance, its own included."""
    starts = np.searchsorted(group, np.arange(group[-1] + 1))
    sizes = np.diff(np.append(starts, len(group)))
    support = weights.astype(np.float64).copy()
    for step in range(1, int(sizes.max())):  # rows of one group that are `step` apart
        same = group[step:] == group[:-step]
        near = same & (np.hypot(*(places[step:] - places[:-step]).T) <= tolerance_px)
        support[step:] += np.where(near, weights[:-step], 0)
        support[:-step] += np.where(near, weights[step:], 0)
    order = np.lexsort((-support, group))
    return order[starts]
