"""How poses of queries are found."""

from __future__ import annotations

from dataclasses import dataclass

from romacli.eval.benchmarks.benchmark import Measure, Published

FOCAL_PX = 4032 * 28 / 36  # of InLoc's phone


@dataclass(frozen=True)
class PlaceEvaluation:
    """One way to find poses.

    points: sampled from the warps of each pair, both directions; fewest: that have a place in space, else the candidate
    is left out. max_error: px of an inlier.
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
    """The points of a model carried into queries by dense warps, as `romacli localize` does.

    max_error: px of an inlier, at a long side of 1600; min_inliers: points that have to agree on a pose.
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
