"""Options of dense point clouds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from romacli.options import Option


@dataclass(frozen=True)
class DensifyOptions:
    """How depth is estimated and checked. Errors are in px at a long side of 1600.

    depth_tolerance: maximum relative difference of consistent depths. min_angle_deg: minimum triangulation angle.
    """

    min_views: Annotated[
        int,
        Option(
            "Minimum images consistent with a point, its own included. Higher leaves fewer, more reliable points.",
            min=2,
        ),
    ] = 3
    max_error: Annotated[
        float,
        Option(
            "Maximum reprojection error against the warps, in px at a long side of 1600. Larger keeps more, less "
            "precise points.",
            min=0.1,
        ),
    ] = 3.0
    max_neighbours: Annotated[
        int,
        Option(
            "Number of neighbours that the depth of each image is estimated from, those with the largest overlap. "
            "More take longer.",
            min=1,
        ),
    ] = 20
    max_uncertainty: Annotated[
        float,
        Option(
            "Maximum standard deviation of a depth relative to the depth, for warp errors of 1 px at a long side of "
            "1600. Larger keeps distant points, less precisely.",
            min=0,
        ),
    ] = 0.006
    depth_tolerance: float = 0.02
    min_angle_deg: float = 1.0
