"""Pairs of images taken near each other, from geographic or Cartesian positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from romacli.errors import UsageError
from romacli.types import PairList

from .nearest import nearest, undirected


def spatial(names: Sequence[str], positions: np.ndarray, *, max_distance_m: float, max_num_neighbors: int) -> PairList:
    """Pair every image with its nearest `max_num_neighbors` others within a distance.

    Args:
        positions: (N, 3) metres, one row per name.
        max_distance_m: maximum straight-line distance.

    Raises:
        UsageError: a limit is not above zero.
    """
    if max_num_neighbors < 1 or not max_distance_m > 0:
        raise UsageError("--max-distance-m and --max-num-neighbors must be above zero.")
    centred = positions - positions.mean(axis=0)
    squares = (centred**2).sum(axis=1)

    def score(block: slice) -> np.ndarray:
        squared = squares[block, None] + squares - 2 * centred[block] @ centred.T
        # The product rounds to centimetres across a continent, far below the error of a position.
        scores = -np.maximum(squared, 0)
        scores[scores < -(max_distance_m**2)] = -np.inf
        rows = np.arange(len(names))[block]
        scores[np.arange(len(rows)), rows] = -np.inf
        return scores

    best = nearest(score, (len(names), len(names)), max_num_neighbors)
    return undirected(names, np.broadcast_to(np.arange(len(names))[:, None], best.shape), best)
