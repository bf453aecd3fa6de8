"""The file names in an output folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from romacli.disk import clear_scratch
from romacli.errors import InputError


@dataclass(frozen=True)
class Layout:
    """The paths under the output folder `root`."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def pairs(self) -> Path:
        return self.root / "pairs.txt"

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def images(self) -> Path:
        return self.root / "images.json"

    @property
    def shards(self) -> Path:
        return self.root / "shards.json"

    @property
    def given_up(self) -> Path:
        return self.root / "given-up.txt"

    @property
    def leases(self) -> Path:
        return self.root / "leases"

    @property
    def features(self) -> Path:
        return self.root / "features.h5"

    @property
    def matches(self) -> Path:
        return self.root / "matches.h5"

    @property
    def global_features(self) -> Path:
        return self.root / "global-features.h5"

    @property
    def preselected(self) -> Path:
        return self.root / "preselected"

    @property
    def database(self) -> Path:
        return self.root / "database.db"

    @property
    def sparse(self) -> Path:
        return self.root / "sparse"

    @property
    def cloud(self) -> Path:
        return self.root / "dense" / "fused.ply"

    @property
    def depth_maps(self) -> Path:
        return self.root / "dense" / "depth_maps"

    @property
    def runs(self) -> Path:
        return self.root / "runs.jsonl"

    @property
    def report(self) -> Path:
        return self.root / "report.html"


def model_of(layout: Layout) -> Path:
    """The folder of a job's largest model.

    Raises:
        InputError: there is none.
    """
    clear_scratch(layout.sparse)
    model = layout.sparse / "0"
    if not model.is_dir():
        raise InputError(f"{layout.root} contains no model. Run `romacli reconstruct` with this --output first.")
    return model
