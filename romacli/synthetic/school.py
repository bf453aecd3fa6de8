"""How hard rendered pairs are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class School:
    """Ranges and frequencies that random scenes are drawn from.

    Attributes:
        swing: radians that each camera may turn about its target: at the 60th percentile of scenes, and at most.
        reach: natural log of each camera's distance to its target, relative to the mean: of most scenes, and of others.
        zoom: natural log of the largest scale between two views of a plane.
        repeated: fraction of surfaces with a repeated motif, where only context tells the elements apart.
        thin: fraction of deep scenes with railings or poles in front.
        near: fraction of deep scenes whose cameras almost coincide.
        night: fraction of pairs with one picture at night.
        alike: fraction of unrelated pairs whose scenes repeat the same motif.
    """

    swing: tuple[float, float] = (0.35, 0.75)
    reach: tuple[float, float] = (0.35, 0.6)
    zoom: float = 1.1
    repeated: float = 0.0
    thin: float = 0.0
    near: float = 0.0
    night: float = 0.0
    alike: float = 0.0


ORDINARY = School()
# Turns of up to 80 degrees, scales of up to 4.
HARD = School(swing=(1.1, 1.5), reach=(0.45, 0.7), zoom=1.39, repeated=0.3, thin=0.3, near=0.05, night=0.3, alike=0.5)
REPEATED = 60  # pictures of repeated motifs among the textures of hard pairs


def school_of(rng: np.random.Generator, hard: float) -> School:
    """The school of the next pair, `HARD` with this probability."""
    return HARD if hard and rng.random() < hard else ORDINARY
