"""The protocols of localization."""

from __future__ import annotations

from dataclasses import dataclass

from romacli.eval.benchmarks.benchmark import Measure, Published

FOCAL_PX = 4032 * 28 / 36  # of InLoc's phone


@dataclass(frozen=True)
class PlaceEvaluation:
    """A protocol with candidates whose points are known in space.

    points: sampled from the warps of each pair, both directions; fewest: minimum points known in space for a candidate
    to be used. max_error: px of an inlier.
    """

    about: str
    points: int
    fewest: int
    max_error: float
    measure: Measure | None = None
    published: tuple[Published, ...] | None = None

    def __str__(self) -> str:
        return (
            f"{self.about}: 1 balanced sample of {self.points} points from the warps of both directions of each pair, "
            f"candidates with fewer than {self.fewest} in space left out, all others together; COLMAP's LO-RANSAC "
            f"{self.max_error:g} px, focal length {FOCAL_PX:.0f} px"
        )


@dataclass(frozen=True)
class CityEvaluation:
    """The points of a model transferred to queries by dense warps, as in `romacli localize`.

    max_error: px of an inlier, at a long side of 1600; min_inliers: of an accepted pose.
    """

    about: str
    max_error: float
    min_inliers: int
    measure: Measure | None = None
    published: tuple[Published, ...] | None = None

    def __str__(self) -> str:
        return (
            f"{self.about}: the model's own points carried by the warps of the listed pairs, as `romacli localize` "
            f"does; COLMAP's LO-RANSAC {self.max_error:g} px, {self.min_inliers} points or more"
        )
