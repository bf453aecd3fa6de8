"""The focal lengths of cameras from all pairs, with bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from romacli.colmap.cameras import DEFAULT_FOCAL_FACTOR
from romacli.geometry.focal import STEP, curves_of, focal_alone, joint_focal, sharp_focal, shifted

from .pairs import FEWEST_PAIRS, Camera, Pairs

# Bounds farther apart than this factor are worthless.
_WIDEST = 2.0
# In longer sides: optical axes of whole photographs are hardly farther off the middle.
_OFF_CENTRE = 0.02


@dataclass(frozen=True)
class Answer:
    """A focal length and its bounds, in longer sides, by `pairs` pairs."""

    focal: float
    low: float
    high: float
    pairs: int


def focal_lengths(pairs: Pairs, cameras: Mapping[int, Camera]) -> dict[int, Answer]:
    """The focal lengths of cameras, by their numbers; those of cameras with a prior are estimated too.

    The bounds include the spread over bootstrapped pairs, and the effects of distortion that fits as well and of a
    centre off by 2 %.
    """
    current = joint_lengths(pairs, cameras)
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
    """(C,) the best focal lengths of cameras by all pairs, determined or not; priors are kept."""
    is_prior = np.array([camera.is_prior for camera in cameras.values()], bool)
    known = np.array([camera.focal for camera in cameras.values()])
    return joint_focal(pairs.matrices, pairs.cameras, np.where(is_prior, known, DEFAULT_FOCAL_FACTOR), ~is_prior)


def _factors_off_centre(pairs: Pairs, row: int) -> list[list[float]]:
    """By how much focal lengths change where the optical axis is off the middle, across and along."""
    matrices = pairs.matrices[pairs.own(row)]
    if len(matrices) < FEWEST_PAIRS:
        return []
    usual = focal_alone(matrices)
    places = [[(side * _OFF_CENTRE, 0.0) for side in (-1, 1)], [(0.0, side * _OFF_CENTRE) for side in (-1, 1)]]
    return [[focal_alone(shifted(matrices, place, place)) / usual for place in both] for both in places]
