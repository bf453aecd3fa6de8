"""How keypoints are made of warps, whichever method makes them. Knows no methods."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AggregateOptions:
    """How shared keypoints are made. Lengths are px at a long side of 1600, scaled to each image of 640 or more.

    method: "tracks" or "cells"; without a say where keypoints are given.
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

    method: str = "tracks"
    max_keypoints: int = 9500
    spacing: float = 11.0
    nms_radius: float = 3.0
    tolerance: float = 6.0
    match_tolerance: float = 3.0
    sweeps: int = 3
    refinements: int = 3
    min_track_length: int = 2
    max_distance: float = 3.0
    seed: int = 0
