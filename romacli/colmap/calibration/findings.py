"""The results of calibration, and messages about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from romacli.types import Size
from romacli.words import counted


@dataclass(frozen=True)
class Calibration:
    """The focal length of a camera in px from `pairs` pairs, with bounds from bootstrapping, distortion and the
    principal point. before_px: the value in the database; is_prior: whether that was from EXIF data."""

    camera: int
    focal_length_px: float
    low_px: float
    high_px: float
    pairs: int
    before_px: float
    is_prior: bool

    @property
    def contradicts(self) -> bool:
        """Whether EXIF data and pairs disagree by more than the bounds and 25 %."""
        ratio = self.before_px / self.focal_length_px
        spread = self.high_px / self.low_px
        return self.is_prior and not 1 / (1.25 * spread) < ratio < 1.25 * spread

    @property
    def source(self) -> str:
        """The source of the focal length, and the value in EXIF data."""
        exif = f"say {self.before_px:.0f} px" if self.is_prior else "have none"
        spread = f"{self.low_px:.0f} to {self.high_px:.0f} px"
        return f"from {counted(self.pairs, 'pair')} ({spread}); EXIF data {exif}"

    def __str__(self) -> str:
        return f"camera {self.camera}: focal length {self.focal_length_px:.0f} px {self.source}"


@dataclass(frozen=True)
class Mixture:
    """Photographs of a shared camera whose pairs imply another focal length than those of the others."""

    camera: int
    names: tuple[str, ...]
    images: int
    focal_length_px: float
    others_px: float

    def __str__(self) -> str:
        odd = f"{len(self.names)} of its {counted(self.images, 'photograph')}, {self.names[0]} first,"
        return (
            f"camera {self.camera}: {odd} seem to have a focal length near {self.focal_length_px:.0f} px by their "
            f"pairs, the others {self.others_px:.0f} px"
        )


@dataclass(frozen=True)
class Separation:
    """Photographs that shared a camera for lack of EXIF data and got cameras of their own, as their pairs imply
    different focal lengths; kept: number of photographs that still share it."""

    camera: int
    names: tuple[str, ...]
    low_px: float
    high_px: float
    kept: int

    def __str__(self) -> str:
        low, high = round(self.low_px), round(self.high_px)
        lengths = f"focal lengths from {low} to {high} px" if low < high else f"a focal length of {low} px"
        rest = f"; the other {self.kept} share one" if self.kept else ""
        has, their, gets = ("has", "its", "it gets") if len(self.names) == 1 else ("have", "their", "each gets")
        return (
            f"camera {self.camera}: {counted(len(self.names), 'photograph')} without EXIF data, {self.names[0]} first, "
            f"{has} {lengths} by {their} pairs, so {gets} a camera of its own{rest}"
        )


@dataclass(frozen=True)
class Lens:
    """Evidence of the pairs against a camera's model.

    edge: relative inward displacement of the middle of a short edge by distortion; centre_px: the principal point, if
    it is far from the image centre; is_set: whether it was written to the database.
    """

    camera: int
    size: Size
    edge: float
    centre_px: tuple[float, float] | None = None
    is_set: bool = False

    def __str__(self) -> str:
        if self.centre_px is not None:
            near, middle = ("({:.0f}, {:.0f}) px".format(*place) for place in (self.centre_px, np.array(self.size) / 2))
            taken = " The model uses that" if self.is_set else " If so, give --camera-params this centre"
            return (
                f"camera {self.camera}: by its pairs the optical axis meets the photographs near {near}, and not in "
                f"their middle, {middle}. Were they cropped?{taken}; whole photographs are better"
            )
        return (
            f"camera {self.camera}: by its pairs the photographs are as distorted as a fisheye's, by "
            f"{100 * self.edge:.0f} % at the edge. --camera-model OPENCV_FISHEYE is for such lenses"
        )


@dataclass(frozen=True)
class Findings:
    """All results for a database."""

    calibrations: tuple[Calibration, ...] = ()
    mixtures: tuple[Mixture, ...] = ()
    lenses: tuple[Lens, ...] = ()
    separations: tuple[Separation, ...] = ()
