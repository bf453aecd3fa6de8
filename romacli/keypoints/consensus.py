"""One position from several predictions of a track."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Consensus:
    """The consensus of each track's predictions.

    ids: (n,) the tracks, ascending; xy: (n, 2) float32 weighted mean of the predictions near the median;
    support: (n,) their weight; share: (n,) their part of the weight of all predictions, in [0, 1].
    """

    ids: np.ndarray
    xy: np.ndarray
    support: np.ndarray
    share: np.ndarray


def combine(ids: np.ndarray, xy: np.ndarray, weights: np.ndarray, tolerance: float) -> Consensus:
    """Average each track's predictions that lie within `tolerance` of their weighted median per axis.

    Args:
        ids: (m,) the track of each prediction, in any order.
        xy: (m, 2) predicted positions in px.
        weights: (m,) positive.
        tolerance: px.
    """
    order = np.argsort(ids, kind="stable")
    ids, xy, weights = ids[order], xy[order], weights[order].astype(np.float64)
    is_first = np.diff(ids, prepend=-1) != 0
    groups, firsts = np.cumsum(is_first) - 1, np.flatnonzero(is_first)
    medians = [weighted_medians(groups, values, weights) for values in xy.T]
    shift = xy - np.stack(medians, axis=1)[groups]
    near = np.where((shift**2).sum(axis=1) < tolerance**2, weights, 0)
    support = np.bincount(groups, near, len(firsts))
    means = [
        median + np.bincount(groups, near * values, len(firsts)) / np.maximum(support, 1e-12)
        for median, values in zip(medians, shift.T, strict=True)
    ]
    share = support / np.bincount(groups, weights, len(firsts))
    return Consensus(ids[firsts], np.stack(means, axis=1).astype(np.float32), support, share)


def weighted_medians(groups: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The lower weighted median of each group: the first value, ascending, that reaches half of the weight.

    groups: (m,) ascending from 0 without gaps; weights: (m,) positive float64.
    """
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    # Group and value in one key: one sort instead of two. Ties do not matter, as their values are equal.
    order = np.argsort(groups + (values - low) / max(2 * (high - low), 1e-9))
    reached = np.cumsum(weights[order])
    ends = reached[np.flatnonzero(np.diff(groups, append=-1))]
    half = ends - np.diff(ends, prepend=0) / 2
    return values[order[np.searchsorted(reached, half)]]
