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
        sky: fraction of deep scenes that end in a skyline, with another sky in each picture.
        passing: fraction of deep scenes with things in front that only one picture shows.
        graded: fraction of pictures with changed saturation and local contrast.
    """

    swing: tuple[float, float] = (0.35, 0.75)
    reach: tuple[float, float] = (0.35, 0.6)
    zoom: float = 1.1
    repeated: float = 0.0
    thin: float = 0.0
    near: float = 0.0
    night: float = 0.0
    alike: float = 0.0
    sky: float = 0.0
    passing: float = 0.0
    graded: float = 0.0


ORDINARY = School()
# Turns of up to 80 degrees, scales of up to 4.
HARD = School(swing=(1.1, 1.5), reach=(0.45, 0.7), zoom=1.39, repeated=0.3, thin=0.3, near=0.05, night=0.3, alike=0.5)
# As visitors photograph a place on different days.
CHANGED = School(swing=(0.6, 1.2), reach=(0.45, 0.7), repeated=0.15, night=0.1, sky=0.6, passing=0.6, graded=0.6)
SCHOOLS = {"ordinary": ORDINARY, "hard": HARD, "changed": CHANGED}
REPEATED = 60  # pictures of repeated motifs among the textures of schools that use them


def school_of(rng: np.random.Generator, hard: float, changed: float = 0.0) -> School:
    """The school of the next pair, `HARD` and `CHANGED` with these probabilities."""
    drawn = rng.random() if hard or changed else 1.0
    return HARD if drawn < hard else CHANGED if drawn < hard + changed else ORDINARY
