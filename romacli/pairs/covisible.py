"""Pairs of images that see the same points of a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from romacli.types import PairList

from .nearest import nearest, undirected


def covisible(names: Sequence[str], observations: np.ndarray, *, num_matched: int, min_shared_points: int) -> PairList:
    """Pair every image with the `num_matched` images that share the most points with it.

    Args:
        observations: (M, 2) of an image, as its index in `names`, and a point that it sees.
        min_shared_points: minimum of a pair; at least 1.
    """
    image, point = np.unique(np.asarray(observations, np.int64).reshape(-1, 2), axis=0).T
    count, num_points = len(names), int(point.max(initial=-1)) + 1
    by_point = np.argsort(point, kind="stable")
    seen_by = image[by_point]
    ends = np.cumsum(np.bincount(point, minlength=num_points))
    lengths = np.diff(ends, prepend=0)
    starts = np.searchsorted(image, np.arange(count + 1))

    def score(block: slice) -> np.ndarray:
        shared = np.zeros((block.stop - block.start, count), np.float64)
        for row, index in enumerate(range(block.start, block.stop)):
            points = point[starts[index] : starts[index + 1]]
            long = lengths[points]
            # Indices in `seen_by` of these points' tracks, concatenated.
            entries = np.arange(long.sum()) + np.repeat(ends[points] - np.cumsum(long), long)
            shared[row] = np.bincount(seen_by[entries], minlength=count)
            shared[row, index] = 0
        shared[shared < max(1, min_shared_points)] = -np.inf
        return shared

    best = nearest(score, (count, count), num_matched)
    return undirected(names, np.broadcast_to(np.arange(count)[:, None], best.shape), best)


def clusters(observations: Sequence[np.ndarray]) -> list[list[int]]:
    """Group images that are connected by shared points; groups are ordered by their first image.

    Args:
        observations: the points (n,) that each image sees, as any integers.
    """
    ids, points = np.unique(np.concatenate([np.zeros(0, np.int64), *observations]), return_inverse=True)
    group = np.arange(len(observations))
    first_of = np.full(len(ids), -1)
    start = 0
    for image, seen in enumerate(observations):
        own = points[start : start + len(seen)]
        start += len(seen)
        known = np.unique(group[first_of[own][first_of[own] >= 0]])
        group[np.isin(group, known)] = known[0] if len(known) else image
        group[image] = known[0] if len(known) else image
        first_of[own[first_of[own] < 0]] = image
    return [np.flatnonzero(group == number).tolist() for number in dict.fromkeys(group.tolist())]
