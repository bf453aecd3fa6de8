"""How keypoints are made of warps, whichever method makes them. Knows no methods."""

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

    method: without a say where keypoints are given.
    max_keypoints: per image; of tracks the longest of each place stay.
    spacing: between the seeds of new tracks; smaller gives more tracks and more work.
    nms_radius: no two keypoints of an image are nearer.
    tolerance: predictions this far from their median have no say.
    match_tolerance: a pair's own warp must lead this near to the other keypoint.
    sweeps: visits to every image while tracks grow.
    refinements: rounds in which positions relax to the mean of what all neighbours predict.
    min_track_length: images a track must be seen in.
    max_distance: how far from where a warp leads a given keypoint may lie to be its match.
    seed: of the jitter of the seeds, and of samples.
    """

    panel: ClassVar[Panel] = Panel.keypoints

    method: Annotated[
        Method,
        Option(
            "How keypoints are made of warps. tracks: points carried from image to image, the longest and most "
            "precise. cells: hloc's quantise and vote, for comparison and compatibility."
        ),
    ] = Method.tracks
    max_keypoints: Annotated[
        int, Option("Keypoints an image may have. More cost time in verification and mapping.", min=1)
    ] = 9500
    spacing: Annotated[
        float,
        Option(
            "Px between the places where tracks start, at a long side of 1600. Smaller gives more tracks and "
            "takes longer.",
            min=1,
        ),
    ] = 11.0
    nms_radius: Annotated[
        float, Option("No two keypoints of an image are nearer, in the same px. Larger thins them out.", min=0.1)
    ] = 3.0
    tolerance: Annotated[
        float,
        Option("How far warps may differ about a place, in the same px. Larger joins more, less precisely.", min=0.1),
    ] = 6.0
    match_tolerance: Annotated[
        float,
        Option(
            "How near a pair's own warp must lead to the other keypoint, in the same px. Larger keeps more "
            "matches, with more wrong ones.",
            min=0.1,
        ),
    ] = 3.0
    sweeps: int = 3
    refinements: int = 3
    min_track_length: Annotated[
        int, Option("Images a track must be seen in. More leaves fewer and surer points.", min=2)
    ] = 2
    max_distance: Annotated[
        float,
        Option(
            "How far from where a warp leads the match of a given keypoint may lie, in px at a long side of "
            "1600. Larger matches more, less precisely.",
            min=0.1,
        ),
    ] = 3.0
    seed: int = 0
