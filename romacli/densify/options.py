"""What is asked of a dense cloud."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from romacli.options import Option


@dataclass(frozen=True)
class DensifyOptions:
    """How depth is found and believed. Errors are px at a long side of 1600.

    depth_tolerance: relative difference of depths that are the same. min_angle_deg: rays that meet at less say nothing
    of depth.
    """

    min_views: Annotated[
        int, Option("Images that have to agree on a point, its own included. More leave fewer, surer points.", min=2)
    ] = 3
    max_error: Annotated[
        float,
        Option(
            "How far from where a warp leads a point may be seen, in px at a long side of 1600. Larger keeps more, "
            "less precisely.",
            min=0.1,
        ),
    ] = 3.0
    max_neighbours: Annotated[
        int, Option("Images by which the depth of each is found, those that overlap most. More take longer.", min=1)
    ] = 20
    max_uncertainty: Annotated[
        float,
        Option(
            "Standard deviation that a depth may have, as a share of the depth, if warps were off by 1 px at a long "
            "side of 1600. Larger keeps what is far away, less precisely.",
            min=0,
        ),
    ] = 0.006
    depth_tolerance: float = 0.02
    min_angle_deg: float = 1.0
