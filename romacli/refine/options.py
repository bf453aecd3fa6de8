"""How tracks are refined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from romacli.options import Option, Panel


@dataclass(frozen=True)
class RefineOptions:
    """Parameters of the alignment; lengths are in px of the photographs.

    refine: whether to refine; None for keypoints made from warps, not for external ones.
    levels: resolutions, each half of the one before.
    half_patch, back_half_patch: a patch has 2 half_patch + 1 samples per side; the latter in the backward direction.
    seed_radius: how far a track may move to a place that a photograph fixes well.
    spacing: of samples, in px of the level.
    steps, longest_step_px: maximum number of steps per level, and length of one in px of the level.
    converged_px: length of the last step below which an alignment has converged.
    reach_px: how far an observation may move, doubled with each level above the first.
    min_correlation: of patches that agree.
    max_deviation_px: a place that the photographs fix less well stays.
    max_doubt_px2: maximum product of deviation and distance moved, at one level.
    smallest_area: of the warp between two views, by which one may shrink the other.
    start_px: deviation per axis of what is not refined, unless the network predicts it.
    carried: extra deviation, as a share of the distance its track moved it.
    rounds: maximum number of views tried per observation.
    """

    panel: ClassVar[Panel] = Panel.keypoints

    refine: Annotated[
        bool | None,
        Option(
            "Refine keypoints to sub-pixel precision by aligning the photographs around them. Default: on for "
            "keypoints made from warps, off for those given by --keypoints.",
            negatable=True,
            has_default=False,
        ),
    ] = None
    levels: int = 1
    half_patch: int = 7
    back_half_patch: int = 10
    seed_radius: int = 8
    spacing: float = 1.5
    steps: int = 10
    longest_step_px: float = 1.5
    converged_px: float = 0.04
    reach_px: float = 3.0
    min_correlation: float = 0.75
    max_deviation_px: float = 0.35
    max_doubt_px2: float = 0.35
    smallest_area: float = 0.15
    start_px: float = 1.0
    carried: float = 0.1
    rounds: int = 4
