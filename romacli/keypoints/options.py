"""How keypoints are made from warps, by any method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from romacli.options import Choice, Option, Panel


class Method(Choice):
    tracks = "tracks"
    cells = "cells"


@dataclass(frozen=True)
class AggregateOptions:
    """How shared keypoints are made. Lengths are px at a long side of 1600, scaled to each image of 640 or more.

    method: has no effect on external keypoints. max_keypoints: in each area the longest tracks are kept.
    tolerance: predictions further than this from their median are ignored. sweeps: passes over all images while tracks
    grow. refinements: rounds in which positions move to the mean of their neighbours' predictions. seed: of the jitter
    of the places where tracks start, and of samples.
    """

    panel: ClassVar[Panel] = Panel.keypoints

    method: Annotated[
        Method,
        Option(
            "How keypoints are made from warps. tracks: points followed from image to image, which gives the longest "
            "and most precise tracks. cells: quantised matches with voting as in hloc, for comparison and "
            "compatibility."
        ),
    ] = Method.tracks
    max_keypoints: Annotated[
        int, Option("Maximum keypoints per image. More slow down verification and mapping.", min=1)
    ] = 9500
    spacing: Annotated[
        float,
        Option(
            "Spacing of the points where tracks start, in px at a long side of 1600. Smaller gives more tracks and "
            "takes longer.",
            min=1,
        ),
    ] = 11.0
    nms_radius: Annotated[
        float,
        Option(
            "Minimum distance between keypoints of an image, in px at a long side of 1600. Larger gives fewer.",
            min=0.1,
        ),
    ] = 3.0
    tolerance: Annotated[
        float,
        Option(
            "How far warps may disagree about a point of a track, in px at a long side of 1600. Larger gives longer, "
            "less precise tracks.",
            min=0.1,
        ),
    ] = 6.0
    match_tolerance: Annotated[
        float,
        Option(
            "Maximum distance from the point that a pair's own warp predicts to the matching keypoint, in px at a "
            "long side of 1600. Larger keeps more matches, and more wrong ones.",
            min=0.1,
        ),
    ] = 3.0
    sweeps: int = 3
    refinements: int = 3
    min_track_length: Annotated[
        int, Option("Minimum images per track. Higher leaves fewer, more reliable points.", min=2)
    ] = 2
    max_distance: Annotated[
        float,
        Option(
            "With --keypoints: maximum distance from the point that a warp predicts to the matching keypoint, in px "
            "at a long side of 1600. Larger matches more, less precisely.",
            min=0.1,
        ),
    ] = 3.0
    seed: int = 0
