"""Models beside the GPS positions of their photographs: how far off they are, and moved there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from romacli.colmap.georeference import GpsFit, georeference
from romacli.errors import NothingFoundError
from romacli.progress import Progress
from romacli.store.layout import Layout


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
