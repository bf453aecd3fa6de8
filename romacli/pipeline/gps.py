"""The GPS positions of photographs: which are believed, what becomes of the others, and the model beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from romacli.colmap.georeference import GpsFit, georeference
from romacli.errors import NothingFoundError
from romacli.geometry.globe import Position
from romacli.pipeline.progress import Progress
from romacli.store.layout import Layout

_NAMES_SHOWN = 5


def believed(
    gps: Mapping[str, Position], faults: Mapping[str, str], number: int, progress: Progress
) -> dict[str, Position]:
    """The positions to go by, once it is said which photographs have one that cannot be true, or no altitude.

    Args:
        gps: (latitude, longitude, altitude) by name; an altitude of 0 may be a missing one.
        faults: by name, what is wrong with a position that is not among `gps`.
        number: of all photographs.
    """
    if faults:
        progress.warn(
            f"the GPS positions of {len(faults)} of {number} photographs cannot be true and count as none: "
            f"{named(faults)}"
        )
    heights = [place[2] for place in gps.values() if place[2]]
    without = [name for name, place in gps.items() if not place[2]]
    if not heights or not without:
        return dict(gps)
    height = median(heights)
    progress.warn(
        f"the GPS positions of {len(without)} of {number} photographs, {without[0]} first, lack an altitude; the "
        f"median of the others, {height:.1f} m, stands in for it"
    )
    return {name: place if place[2] else (*place[:2], height) for name, place in gps.items()}


def named(faults: Mapping[str, str]) -> str:
    """The first few photographs with what is wrong with their positions."""
    shown = "; ".join(f"that of {name} {fault}" for name, fault in list(faults.items())[:_NAMES_SHOWN])
    return shown + (f"; and {len(faults) - _NAMES_SHOWN} more" if len(faults) > _NAMES_SHOWN else "")


def georeference_models(layout: Layout, database: Path, progress: Progress) -> None:
    """Move the models of a job to the GPS positions of their photographs; smaller ones that cannot be are named.

    Raises:
        NothingFoundError: the largest cannot be.
    """
    for folder in sorted(layout.sparse.iterdir(), key=lambda path: (len(path.name), path.name)):
        try:
            georeference(folder, database)
        except NothingFoundError as error:
            if folder.name == "0":
                raise
            progress.warn(str(error))


def gps_values(fit: GpsFit) -> dict[str, Any]:
    """A comparison as JSON values."""
    return {
        "images": len(fit.residuals_m),
        "median_m": round(fit.median_m, 3),
        "largest_m": round(fit.largest_m, 3),
        "largest_image": fit.worst,
        "extent_m": round(fit.extent_m, 3),
    }
