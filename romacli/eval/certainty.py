"""How well a network's certainty ranks its answers, and how well it is calibrated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CertaintyBin:
    """Answers whose certainty lies in [low, high); the last bin holds 1 as well.

    Attributes:
        mean_certainty, share_right: over the `count` answers in the bin; NaN where it is empty.
    """

    low: float
    high: float
    mean_certainty: float
    share_right: float
    count: int


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram as a table.

    Attributes:
        expected_error: mean |certainty - share right| of the bins, weighted by their counts.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3.
    """

    bins: tuple[CertaintyBin, ...]
    expected_error: float


def reliability(certainty: NDArray[np.floating], right: NDArray[np.bool_], *, bins: int = 10) -> Reliability:
    """The share of right answers by certainty (N,) in [0, 1], in bins of equal width."""
    index = np.minimum((certainty * bins).astype(np.int64), bins - 1)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, certainty, minlength=bins) / counts
        share = np.bincount(index, right, minlength=bins) / counts
    edges = np.linspace(0, 1, bins + 1)
    table = tuple(
        CertaintyBin(float(edges[i]), float(edges[i + 1]), float(mean[i]), float(share[i]), int(counts[i]))
        for i in range(bins)
    )
    gaps = np.abs(mean - share)[counts > 0] * counts[counts > 0]
    return Reliability(table, float(gaps.sum() / max(len(certainty), 1)))


def area_under_roc(score: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """The probability that a positive outscores a negative; ties count in their order."""
    rank = np.empty(len(score))
    rank[np.argsort(score, kind="stable")] = np.arange(1, len(score) + 1)
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return float("nan")
    return float((rank[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))
