"""How tracks are refined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from romacli.options import Option, Panel


@dataclass(frozen=True)
class RefineOptions:
    """Lengths are in px of the photographs.

    refine: whether at all; None for keypoints that are made of the warps and not for those that are given.
    levels: resolutions, each half of the one before; half_patch: a patch has 2 half_patch + 1 samples a side;
    back_half_patch: the same on the way back; seed_radius: how far a track may move to where a photograph fixes it
    well; spacing: of samples, in px of the level; steps: at most so many a level; longest_step_px: of one step, in px
    of the level; converged_px: a last step shorter than this has arrived; reach_px: how far an observation may move,
    twice as far for each level more; min_correlation: of patches that agree; max_deviation_px: where the photographs
    fix a place less well, it stays; max_doubt_px2: the same for the deviation times the way from the start, at one
    level; smallest_area: of the warp between two views, by which one may shrink the other; start_px: deviation per axis
    of what is not refined, unless the network predicts it; carried: of what its track moved it by besides, as a share;
    rounds: so many other views are tried, one after the other.
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
