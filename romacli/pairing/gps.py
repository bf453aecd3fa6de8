"""The plausible GPS positions of photographs, with warnings about the others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from romacli.geometry.globe import Position
from romacli.progress import Progress

_NAMES_SHOWN = 5


def believed(
    gps: Mapping[str, Position], faults: Mapping[str, str], number: int, progress: Progress
) -> dict[str, Position]:
    """The usable positions, with warnings about photographs whose position is implausible or lacks an altitude.

    Args:
        gps: (latitude, longitude, altitude) by name; an altitude of 0 may be a missing one.
        faults: by name, what is wrong with a position that is not in `gps`.
        number: of all photographs.
    """
    if faults:
        progress.warn(
            f"the GPS positions of {len(faults)} of {number} photographs are implausible and are ignored: "
            f"{named(faults)}"
        )
    heights = [place[2] for place in gps.values() if place[2]]
    without = [name for name, place in gps.items() if not place[2]]
    if not heights or not without:
        return dict(gps)
    height = float(np.median(heights))
    progress.warn(
        f"the GPS positions of {len(without)} of {number} photographs, starting with {without[0]}, lack an altitude; "
        f"the median of the others, {height:.1f} m, is used"
    )
    return {name: place if place[2] else (*place[:2], height) for name, place in gps.items()}


def named(faults: Mapping[str, str]) -> str:
    """The first few photographs with implausible positions, and the reasons."""
    shown = "; ".join(f"that of {name} {fault}" for name, fault in list(faults.items())[:_NAMES_SHOWN])
    return shown + (f"; and {len(faults) - _NAMES_SHOWN} more" if len(faults) > _NAMES_SHOWN else "")
