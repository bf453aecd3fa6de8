"""Areas under recall curves, and confidence intervals of means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean over RANSAC seeds and its 95 % confidence interval; NaN bounds for one seed."""

    mean: float
    low: float
    high: float


def pose_auc(errors_deg: np.ndarray, threshold_deg: float) -> float:
    """The area under the curve of recall over error, from 0 to a threshold, relative to the threshold.

    Args:
        errors_deg: (N,), infinite for pairs without a pose.

    Source: SuperGlue's evaluation: the curve connects (0, 0) and the points (i-th smallest error, i / N), and is
    constant from the last of them to the threshold.
    """
    inside = np.sort(errors_deg[errors_deg < threshold_deg])
    recall = np.arange(len(inside) + 1) / len(errors_deg)
    widths = np.diff(np.concatenate(([0.0], inside, [threshold_deg])))
    heights = (recall + np.append(recall[1:], recall[-1])) / 2
    return float(widths @ heights / threshold_deg)


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent values and its 95 % confidence interval by Student's t."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    half = student_t_975(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


@cache
def student_t_975(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, by numerical integration of its density (to 1e-3)."""
    t = np.linspace(0, 20, 200_001)
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    density = np.exp(log_scale - (freedom + 1) / 2 * np.log1p(t**2 / freedom))
    mass = np.cumsum((density[1:] + density[:-1]) / 2) * (t[1] - t[0])
    return float(t[1:][np.searchsorted(mass, 0.475)])
