"""The focal lengths of a model, with their starting values and sources."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from romacli.colmap.cameras import DEFAULT_FOCAL_FACTOR
from romacli.colmap.reading import Model, read_focal_lengths
from romacli.job.outputs.model import UNCHANGED_PX
from romacli.job.outputs.recipe import noted_calibrations, noted_import
from romacli.store.layout import Layout
from romacli.words import counted


@dataclass(frozen=True)
class FocalLength:
    """The focal length in px of a camera after and before mapping, and the source of the latter."""

    camera: int
    images: int
    px: float
    start_px: float
    source: str

    def __str__(self) -> str:
        of = f"camera {self.camera} ({counted(self.images, 'image')})"
        if abs(self.px - self.start_px) < UNCHANGED_PX:
            return f"{of}: focal length {self.px:.0f} px {self.source}"
        return f"{of}: focal length {self.px:.0f} px, refined from {self.start_px:.0f} px {self.source}"


def focal_lengths(layout: Layout, database: Path, model: Model) -> tuple[FocalLength, ...]:
    """Of every camera that the model has and the database knows, by their numbers.

    Raises:
        InputError, StoreError: there is no such database, or it cannot be read.
    """
    noted = noted_import(layout, database)
    given = {
        camera.number
        for name, camera in model.cameras.items()
        if noted is not None and (noted.options.known_poses is not None or noted.options.cameras.gives(name))
    }
    from_pairs = {told.camera: told.source for told in noted_calibrations(layout, database)}
    start = read_focal_lengths(database)
    images = Counter(camera.number for camera in model.cameras.values())
    cameras = {camera.number: camera for camera in model.cameras.values() if camera.number in start}
    found = []
    for number, camera in sorted(cameras.items()):
        start_px, is_prior = start[number]
        is_usual = abs(start_px / max(camera.size) / DEFAULT_FOCAL_FACTOR - 1) < 1e-3
        if number in given:
            source = "as given"
        elif is_prior:
            source = "from EXIF data"
        else:
            guess = f"(a guess, {DEFAULT_FOCAL_FACTOR} times the longer side; neither EXIF data nor pairs determine it)"
            jointly = "(a guess from all pairs together; neither EXIF data nor its own pairs determine it)"
            source = from_pairs.get(number, guess if is_usual else jointly)
        found.append(FocalLength(number, images[number], camera.focal_length_px, start_px, source))
    return tuple(found)
