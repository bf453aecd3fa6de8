"""Focal lengths from fundamental matrices, in longer sides of the picture.

For the true focal lengths, E = K1^T F K0 has two equal singular values. Each pair gives a residual at every focal
length; these are combined robustly, so that a few wrong pairs have little influence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

FOCAL_LENGTHS = np.geomspace(0.35, 4.0, 240)
STEP = float(FOCAL_LENGTHS[1] / FOCAL_LENGTHS[0])
# Residuals are truncated here.
_MOST_RESIDUAL = 0.1
# The estimate must be sharp: a few per cent of spread over bootstraps, and clearly better than 1.5 times it.
_MOST_SPREAD, _LEAST_CONTRAST = 0.12, 2.0
_DRAWS = 60
# A centre is sought in steps that are halved, from the first to the last, no farther than this from the middle.
_FIRST_STEP, _LAST_STEP, _FARTHEST = 0.08, 0.005, 0.5


def drawn_anew(count: int) -> np.ndarray:
    """(draws, count) rows of pairs, drawn with replacement; always the same."""
    return np.random.default_rng(0).integers(0, count, (_DRAWS, count))


def focal_curves(matrices: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(focal lengths, N) truncated residuals of pairs at each focal length.

    Args:
        matrices: (N, 3, 3), x1^T F x0 = 0. first, second: (N,) focal lengths; NaN for the one that is sought.
    """
    curves = np.empty((len(FOCAL_LENGTHS), len(matrices)))
    for index, length in enumerate(FOCAL_LENGTHS):
        ends = (np.where(np.isnan(values), length, values) for values in (first, second))
        curves[index] = residuals(matrices, *ends)
    return np.minimum(curves, _MOST_RESIDUAL)


def best_focal(curves: np.ndarray) -> float:
    """The focal length with the smallest sum of (focal lengths, N) residuals."""
    return float(FOCAL_LENGTHS[np.argmin(curves.sum(axis=1))])


def sharp_focal(curves: np.ndarray) -> tuple[float, float, float] | None:
    """The focal length that fits most pairs and what encloses 90 % of bootstraps; None if it is not sharp."""
    total = curves.sum(axis=1)
    best = int(np.argmin(total))
    focal = FOCAL_LENGTHS[best]
    again = [best_focal(curves[:, drawn]) for drawn in drawn_anew(curves.shape[1])]
    low, high = np.quantile(again, (0.05, 0.95))
    beside = [total[np.searchsorted(FOCAL_LENGTHS, focal * by).clip(0, len(total) - 1)] for by in (1 / 1.5, 1.5)]
    is_inside = 0 < best < len(FOCAL_LENGTHS) - 1
    is_sharp = high / low - 1 < _MOST_SPREAD and min(beside) > _LEAST_CONTRAST * total[best]
    return (float(focal), float(low), float(high)) if is_inside and is_sharp else None


def residuals(matrices: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How far K1^T F K0 are from essential matrices: (a^2 - b^2) / (a^2 + b^2) of their two singular values.

    Args:
        matrices: (N, 3, 3), x1^T F x0 = 0. first, second: (N,) focal lengths of both cameras in the same unit.
    """
    one = np.ones(len(matrices))
    rows, columns = np.stack((second, second, one), 1), np.stack((first, first, one), 1)
    essential = matrices * rows[:, :, None] * columns[:, None, :]
    square = essential @ essential.transpose(0, 2, 1)
    trace, of_square = np.trace(square, axis1=1, axis2=2), np.trace(square @ square, axis1=1, axis2=2)
    return np.sqrt(np.maximum(2 * of_square - trace**2, 0)) / np.maximum(trace, 1e-300)


def shifted(matrices: np.ndarray, first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """F (N, 3, 3) between points from other centres, by where these lay before: (2,), or (N, 2) for each pair."""
    moves = np.tile(np.eye(3), (2, len(matrices), 1, 1))
    moves[0, :, :2, 2], moves[1, :, :2, 2] = first, second
    moved = moves[1].transpose(0, 2, 1) @ matrices @ moves[0]
    return np.asarray(moved / np.linalg.norm(moved, axis=(1, 2), keepdims=True))


def best_centre(matrices: np.ndarray) -> tuple[tuple[float, float], float]:
    """Where from the middle the optical axis of a camera meets its pictures, by pairs of its own (N, 3, 3).

    Returns:
        (x, y) in longer sides; how many times as large as there the residuals are with the axis in the middle.
    """
    unknown = np.full(len(matrices), np.nan)

    def misfit(place: tuple[float, float]) -> float:
        return float(focal_curves(shifted(matrices, place, place), unknown, unknown).sum(axis=1).min())

    centre, step = (0.0, 0.0), _FIRST_STEP
    least = in_the_middle = misfit(centre)
    while step >= _LAST_STEP:
        around = [(centre[0] + x * step, centre[1] + y * step) for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        found = {misfit(place): place for place in around if np.hypot(*place) <= _FARTHEST}
        if found and min(found) < least:
            least = min(found)
            centre = found[least]
        else:
            step /= 2
    return centre, in_the_middle / max(least, 1e-12)
