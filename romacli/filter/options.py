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
            "Keep pairs of places that only look alike from the mapper, as `romacli filter` tells them, and leave out "
            "images that the model's pairs contradict. For symmetric or repeated buildings.",
            negatable=True,
        ),
    ] = False
