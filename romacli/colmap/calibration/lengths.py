"""Estimate the focal lengths of cameras from all pairs, with bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from romacli.colmap.cameras import DEFAULT_FOCAL_FACTOR
from romacli.geometry.focal import STEP, curves_of, focal_alone, joint_focal, sharp_focal, shifted

from .pairs import FEWEST_PAIRS, Camera, Pairs

# Estimates whose bounds differ by more than this factor are discarded.
_WIDEST = 2.0
# Minimum cameras with pairs or EXIF data that tell the usual focal length of a job, and the standard deviation of
# logarithms about it.
_MANY, _SPREAD = 8, 0.35
# Maximum distance of principal points of uncropped photographs from the image centre, in long sides.
_OFF_CENTRE = 0.02


@dataclass(frozen=True)
class Answer:
    """A focal length and its bounds, in long sides, from `pairs` pairs."""

    focal: float
    low: float
    high: float
    pairs: int


def focal_lengths(pairs: Pairs, cameras: Mapping[int, Camera], current: np.ndarray) -> dict[int, Answer]:
    """The focal lengths of cameras by id, including those with a prior; `current` are their joint estimates (C,).

    The bounds combine the spread over bootstrapped pairs with the effects of equally plausible distortion and of a
    principal point off by 2 %.
    """
    found = {}
    for row, camera in enumerate(cameras):
        curves = curves_of(pairs.matrices, pairs.cameras, row, current)
        if curves.shape[1] >= FEWEST_PAIRS and (answer := sharp_focal(curves)):
            factors = [[bound / answer[0] for bound in answer[1:]], [1 / STEP, STEP], *_factors_off_centre(pairs, row)]
            if row in pairs.distortions:
                factors.append(pairs.distortions[row].factors)
            logs = np.log(factors)
            low, high = (side * np.sqrt((np.maximum(side * logs, 0).max(axis=1) ** 2).sum()) for side in (-1, 1))
            if high - low < np.log(_WIDEST):
                focal = answer[0]
                found[camera] = Answer(focal, focal * np.exp(low), focal * np.exp(high), curves.shape[1])
    return found


def joint_lengths(pairs: Pairs, cameras: Mapping[int, Camera]) -> np.ndarray:
    """(C,) the best joint estimate of the focal lengths of cameras, determined or not; those from EXIF data are fixed.

    Among many cameras, one that its pairs hardly determine has a focal length near theirs.
    """
    is_free = np.array([not camera.is_prior for camera in cameras.values()], bool)
    known = np.array([camera.focal for camera in cameras.values()])
    found = joint_focal(pairs.matrices, pairs.cameras, np.where(is_free, DEFAULT_FOCAL_FACTOR, known), is_free)
    tells = ~is_free
    tells[pairs.cameras] = True
    if tells.sum() < _MANY:
        return found
    usual = np.where(is_free, np.exp(np.median(np.log(found[tells]))), known)
    return joint_focal(pairs.matrices, pairs.cameras, usual, is_free, _SPREAD)


def _factors_off_centre(pairs: Pairs, row: int) -> list[list[float]]:
    """The factors by which focal lengths change if the principal point is off, in x and in y."""
    matrices = pairs.matrices[pairs.own(row)]
    if len(matrices) < FEWEST_PAIRS:
        return []
    usual = focal_alone(matrices)
    places = [[(side * _OFF_CENTRE, 0.0) for side in (-1, 1)], [(0.0, side * _OFF_CENTRE) for side in (-1, 1)]]
    return [[focal_alone(shifted(matrices, place, place)) / usual for place in both] for both in places]
