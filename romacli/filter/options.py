"""Whether pairs are filtered before they are mapped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from romacli.options import Option, Panel


@dataclass(frozen=True)
class FilterOptions:
    panel: ClassVar[Panel] = Panel.mapping

    filter: Annotated[
        bool,
        Option(
            "Exclude pairs of places that only look alike, found as by `romacli filter`, and images whose matches the "
            "model contradicts. With --known-poses, and for matches of keypoints, nothing is excluded.",
            negatable=True,
        ),
    ] = True
