"""Estimate the distortion of cameras from pairs within each, and refit fundamental matrices without it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np

from romacli.colmap.access import PAIR_BASE
from romacli.colmap.reading import image_points, pair_inliers
from romacli.geometry.distortion import fit_fundamental
from romacli.geometry.focal import drawn_anew, focal_alone
from romacli.types import Size

from .pairs import FEWEST_PAIRS, Camera, Distortion, Pairs

# Pairs fitted at once, and matches per pair.
_AT_ONCE, _MATCHES = 100, 300
# Per long side squared, from fisheye to pincushion; refined in smaller steps around the best.
_DISTORTIONS = np.array([-3.2, -1.6, -0.8, -0.4, -0.2, -0.1, 0, 0.1, 0.2, 0.4, 0.8])
# COLMAP's numbers of camera models without distortion.
_PINHOLES = (0, 1)


def without_distortion(database: sqlite3.Connection, pairs: Pairs, cameras: Mapping[int, Camera]) -> Pairs:
    """The pairs without the distortion of cameras that have enough pairs within them."""
    sizes, found = [camera.size for camera in cameras.values()], {}
    for row, camera in enumerate(cameras.values()):
        own = pairs.own(row)
        if camera.model not in _PINHOLES and len(own) >= FEWEST_PAIRS:
            found[row] = _distortion(_matches(database, pairs, own, sizes))
    distorted = np.isin(pairs.cameras, [row for row, one in found.items() if one.value]).any(axis=1)
    return fitted_again(database, replace(pairs, distortions=found), cameras, np.flatnonzero(distorted))


def fitted_again(
    database: sqlite3.Connection, pairs: Pairs, cameras: Mapping[int, Camera], rows: np.ndarray | None = None
) -> Pairs:
    """Refit the matrices of `rows`, by default all, to their matches."""
    rows = np.arange(len(pairs.matrices)) if rows is None else rows
    values = np.zeros(len(cameras))
    for row, one in pairs.distortions.items():
        values[row] = one.value
    matrices, sizes = pairs.matrices.copy(), [camera.size for camera in cameras.values()]
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        points = _matches(database, pairs, some, sizes)
        matrices[some] = fit_fundamental(points, values[pairs.cameras[some]][:, :, None])[0]
    return replace(pairs, matrices=matrices)


def _distortion(points: np.ndarray) -> Distortion:
    """From matches (N, 2, M, 2) of pairs within a camera; 0 if bootstrapped pairs disagree on its sign."""

    def misfit(values: np.ndarray, scale: float) -> np.ndarray:
        return np.array([np.log1p((fit_fundamental(points, one)[1] / scale) ** 2).mean(axis=1) for one in values])

    scale = float(np.median(fit_fundamental(points, 0.0)[1])) + 1e-12
    about = int(np.argmin(misfit(_DISTORTIONS, scale).sum(axis=1)).clip(1, len(_DISTORTIONS) - 2))
    near = np.linspace(_DISTORTIONS[about - 1], _DISTORTIONS[about + 1], 17)
    curves = misfit(near, float(np.median(fit_fundamental(points, _DISTORTIONS[about])[1])) + 1e-12)
    best = int(np.argmin(curves.sum(axis=1)))
    again = [int(np.argmin(curves[:, drawn].sum(axis=1))) for drawn in drawn_anew(len(points))]
    low, high = max(0, min(best - 1, *again)), min(len(near) - 1, max(best + 1, *again))
    if near[low] <= 0 <= near[high]:
        best = int(np.argmin(np.abs(near)))
    usual, *others = (focal_alone(fit_fundamental(points, near[step])[0]) for step in (best, low, high))
    return Distortion(float(near[best]), [other / usual for other in others])


def _matches(database: sqlite3.Connection, pairs: Pairs, rows: np.ndarray, sizes: Sequence[Size]) -> np.ndarray:
    """(N, 2, M, 2) sampled inliers of N pairs, in long sides from the image centres; repeated if there are few."""
    points = lru_cache(maxsize=256)(partial(image_points, database))
    found = np.empty((len(rows), 2, _MATCHES, 2))
    for place, row in enumerate(rows):
        images = pairs.images[row].tolist()
        inliers = pair_inliers(database, PAIR_BASE * images[0] + images[1])
        chosen = inliers[np.linspace(0, len(inliers) - 1, _MATCHES).round().astype(int)]
        for side, image in enumerate(images):
            size = np.array(sizes[pairs.cameras[row, side]])
            found[place, side] = (points(image)[chosen[:, side]] - size / 2) / size.max()
    return found
