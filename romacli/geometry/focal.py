"""Focal lengths from fundamental matrices, in long sides of the image.

For the true focal lengths, E = K1^T F K0 has two equal singular values. Each pair gives a residual at every focal
length; these are combined robustly, so a few wrong pairs have little influence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

FOCAL_LENGTHS = np.geomspace(0.35, 4.0, 240)
STEP = float(FOCAL_LENGTHS[1] / FOCAL_LENGTHS[0])
# Residuals that are computed in one go: more take memory, fewer time.
_AT_ONCE = 1 << 13
# Residuals are truncated here.
_MOST_RESIDUAL = 0.1
# An estimate is sharp if bootstraps spread by a few per cent, and it fits clearly better than 1.5 times its value.
_MOST_SPREAD, _LEAST_CONTRAST = 0.12, 2.0
_DRAWS = 60
# Joint estimates: the scale of the Cauchy loss, and the standard deviation of log focal lengths.
_SCALE, USUAL_SPREAD = 0.02, 0.7
_MOST_STEPS, _MOST_GRADIENTS, _LONGEST_STEP, _DERIVATIVE_STEP = 60, 100, 0.3, 1e-5
_DAMPING, _MOST_DAMPING, _LITTLE = 1e-3, 1e4, 1e-6
# Search for the principal point: first and last step, which is halved in between, and the maximum distance.
_FIRST_STEP, _LAST_STEP, _FARTHEST = 0.08, 0.005, 0.5


def drawn_anew(count: int) -> np.ndarray:
    """(draws, count) bootstrap samples of pairs, always the same."""
    return np.random.default_rng(0).integers(0, count, (_DRAWS, count))


def focal_curves(matrices: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(focal lengths, N) truncated residuals of pairs at each focal length.

    Args:
        matrices: (N, 3, 3), x1^T F x0 = 0. first, second: (N,) focal lengths; NaN for the unknown one.
    """
    curves = np.empty((len(FOCAL_LENGTHS), len(matrices)))
    rows = max(1, _AT_ONCE // max(1, len(matrices)))
    for start in range(0, len(FOCAL_LENGTHS), rows):
        lengths = FOCAL_LENGTHS[start : start + rows, None]
        ends = (np.where(np.isnan(values), lengths, values) for values in (first, second))
        curves[start : start + rows] = residuals(matrices, *ends)
    return np.minimum(curves, _MOST_RESIDUAL)


def curves_of(matrices: np.ndarray, cameras: np.ndarray, camera: int, focal: np.ndarray) -> np.ndarray:
    """(focal lengths, M) residuals of the pairs of one camera at each of its focal lengths.

    Args:
        matrices: (N, 3, 3), x1^T F x0 = 0. cameras: (N, 2) rows of the two cameras.
        focal: (C,) focal lengths of all cameras.
    """
    chosen = (cameras == camera).any(axis=1)
    ends = np.where(cameras == camera, np.nan, focal[cameras])[chosen]
    return focal_curves(matrices[chosen], ends[:, 0], ends[:, 1])


def joint_focal(
    matrices: np.ndarray, cameras: np.ndarray, usual: np.ndarray, free: np.ndarray, spread: float = USUAL_SPREAD
) -> np.ndarray:
    """The focal lengths (C,) of all cameras that jointly explain the pairs best.

    Minimises `pair_costs` plus `focal_costs` over the logarithms of the focal lengths by Levenberg-Marquardt. A focal
    length that no pair determines stays near its prior.

    Args:
        matrices: (N, 3, 3), x1^T F x0 = 0. cameras: (N, 2) rows of the two cameras.
        usual: (C,) initial values, which are also the prior. free: (C,) bool, which may change.
        spread: the prior's standard deviation of log focal lengths.
    """
    log, damping = np.log(usual), _DAMPING

    def cost(log: np.ndarray) -> float:
        costs = focal_costs(np.exp(log), usual, spread)
        return float(pair_costs(matrices, cameras, np.exp(log)).sum() + costs.sum())

    least = cost(log)
    for _ in range(_MOST_STEPS):
        blocks, slope = _normal_equations(matrices, cameras, log)
        slope += (log - np.log(usual)) / spread**2
        step = np.where(free, _step(blocks, np.where(free, slope, 0.0), cameras, free, damping, spread), 0.0)
        moved = log + step.clip(-_LONGEST_STEP, _LONGEST_STEP)
        if (now := cost(moved)) >= least:
            damping *= 5
            if damping > _MOST_DAMPING:
                break
            continue
        is_done, log, least, damping = least - now < _LITTLE * least, moved, now, damping / 3
        if is_done:
            break
    return np.exp(log)


def pair_costs(matrices: np.ndarray, cameras: np.ndarray, focal: np.ndarray) -> np.ndarray:
    """(N,) Cauchy loss of the residual of each pair's essential constraint; arguments as for `joint_focal`."""
    return np.asarray(np.log1p((_left(matrices, *focal[cameras].T) ** 2).sum(axis=1) / _SCALE**2))


def focal_costs(focal: np.ndarray, usual: np.ndarray, spread: float = USUAL_SPREAD) -> np.ndarray:
    """(C,) the cost of deviations from the prior, in the unit of `pair_costs`."""
    return np.asarray((np.log(focal / usual) / spread) ** 2)


def _left(matrices: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, 9) 2 E E^T E - trace(E E^T) E, which vanishes for essential matrices E = K1^T F K0, of unit length."""
    essential = _essential(matrices, first, second)
    essential /= np.linalg.norm(essential, axis=(1, 2), keepdims=True)
    square = essential @ essential.transpose(0, 2, 1)
    return (2 * square @ essential - essential).reshape(-1, 9)


def _normal_equations(matrices: np.ndarray, cameras: np.ndarray, log: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weighted blocks (N, 2, 2) of J^T J, one per pair, and the gradient (C,) of the pairs' costs."""
    ends = log[cameras]
    left = _left(matrices, *np.exp(ends).T)
    moved = (ends + np.eye(2)[:, None] * _DERIVATIVE_STEP).transpose(0, 2, 1)
    slopes = np.stack([(_left(matrices, *np.exp(both)) - left) / _DERIVATIVE_STEP for both in moved], axis=2)
    weights = 1 / (_SCALE**2 + (left**2).sum(axis=1))
    blocks = np.einsum("nri,nrj,n->nij", slopes, slopes, weights)
    return blocks, _added(np.einsum("nri,nr,n->ni", slopes, left, weights), cameras, len(log))


def _step(
    blocks: np.ndarray, slope: np.ndarray, cameras: np.ndarray, free: np.ndarray, damping: float, spread: float
) -> np.ndarray:
    """Solve the damped normal equations for (C,) steps, by conjugate gradients."""
    diagonal = _added(np.diagonal(blocks, axis1=1, axis2=2), cameras, len(slope)) + 1 / spread**2

    def product(x: np.ndarray) -> np.ndarray:
        full = _added(np.einsum("nij,nj->ni", blocks, x[cameras]), cameras, len(x)) + x / spread**2
        return np.where(free, full + damping * diagonal * x, 0.0)

    step, left = np.zeros_like(slope), -slope
    first = towards = left / diagonal
    for _ in range(_MOST_GRADIENTS):
        if (before := float(left @ first)) < 1e-20:
            break
        ahead = product(towards)
        length = before / float(towards @ ahead)
        step, left = step + length * towards, left - length * ahead
        first = left / diagonal
        towards = first + float(left @ first) / before * towards
    return step


def _added(values: np.ndarray, cameras: np.ndarray, count: int) -> np.ndarray:
    """Sum values (N, 2) of the pairs' cameras by camera, (count,)."""
    return np.bincount(cameras.ravel(), values.ravel(), minlength=count).astype(float)


def best_focal(curves: np.ndarray) -> float:
    """The focal length with the smallest sum of (focal lengths, N) residuals."""
    return float(FOCAL_LENGTHS[np.argmin(curves.sum(axis=1))])


def focal_alone(matrices: np.ndarray) -> float:
    """The focal length of a camera from pairs (N, 3, 3) within it."""
    unknown = np.full(len(matrices), np.nan)
    return best_focal(focal_curves(matrices, unknown, unknown))


def sharp_focal(curves: np.ndarray) -> tuple[float, float, float] | None:
    """The best focal length and the bounds of 90 % of bootstraps; None if it is not sharp."""
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
    """The deviation of K1^T F K0 from essential matrices: (a^2 - b^2) / (a^2 + b^2) of their two singular values.

    Args:
        matrices: (N, 3, 3), x1^T F x0 = 0. first, second: (..., N) focal lengths of both cameras in the same unit.

    Returns:
        (..., N).
    """
    essential = _essential(matrices, first, second)
    square = essential @ essential.swapaxes(-1, -2)
    trace, of_square = (np.trace(matrix, axis1=-2, axis2=-1) for matrix in (square, square @ square))
    return np.sqrt(np.maximum(2 * of_square - trace**2, 0)) / np.maximum(trace, 1e-300)


def _essential(matrices: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """K1^T F K0, (..., N, 3, 3), for focal lengths (..., N) of both cameras."""
    rows, columns = (np.stack((focal, focal, np.ones_like(focal)), -1) for focal in (second, first))
    return matrices * rows[..., :, None] * columns[..., None, :]


def shifted(matrices: np.ndarray, first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """F (N, 3, 3) for coordinates relative to other centres, given in the old coordinates: (2,), or (N, 2) per pair."""
    moves = np.tile(np.eye(3), (2, len(matrices), 1, 1))
    moves[0, :, :2, 2], moves[1, :, :2, 2] = first, second
    moved = moves[1].transpose(0, 2, 1) @ matrices @ moves[0]
    return np.asarray(moved / np.linalg.norm(moved, axis=(1, 2), keepdims=True))


def best_centre(matrices: np.ndarray) -> tuple[tuple[float, float], float]:
    """The principal point of a camera relative to the image centre, from pairs (N, 3, 3) within the camera.

    Returns:
        (x, y) in long sides; the ratio of the residuals at the image centre to those there.
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
