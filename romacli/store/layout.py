"""The file names in an output folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from romacli.disk import put_back
from romacli.errors import InputError


class _Below:
    """A path under a layout's root."""

    def __init__(self, *parts: str) -> None:
        self._parts = parts

    def __get__(self, layout: Layout, kind: type[Layout]) -> Path:
        return layout.root.joinpath(*self._parts)


@dataclass(frozen=True)
class Layout:
    """The paths under the output folder `root`."""

    root: Path

    manifest = _Below("manifest.json")
    pairs = _Below("pairs.txt")
    journal = _Below("journal")
    images = _Below("images.json")
    shards = _Below("shards.json")
    given_up = _Below("given-up.txt")
    leases = _Below("leases")
    features = _Below("features.h5")
    matches = _Below("matches.h5")
    global_features = _Below("global-features.h5")
    preselected = _Below("preselected")
    database = _Below("database.db")
    sparse = _Below("sparse")
    cloud = _Below("dense", "fused.ply")
    depth_maps = _Below("dense", "depth_maps")
    runs = _Below("runs.jsonl")
    report = _Below("report.html")

    def depth_map(self, name: str) -> Path:
        """The depth map of a photograph, named as COLMAP names its own."""
        return self.depth_maps / f"{name}.geometric.bin"


def model_of(layout: Layout) -> Path:
    """The folder of a job's largest model.

    Raises:
        InputError: there is none.
    """
    put_back(layout.sparse)
    model = layout.sparse / "0"
    if not model.is_dir():
        raise InputError(f"{layout.root} contains no model. Run `romacli reconstruct` with this --output first.")
    return model
