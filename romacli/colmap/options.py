"""What is asked of cameras and of verification."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from romacli.errors import UsageError
from romacli.options import Choice, Option, Panel

from .rigs import RigFile, read_rigs


class CameraMode(Choice):
    auto = "auto"
    single = "single"
    per_folder = "per-folder"
    per_image = "per-image"


class Verifier(Choice):
    magsac = "magsac"
    colmap = "colmap"


def parse_camera_params(text: str) -> tuple[float, ...]:
    """Read `--camera-params`, numbers separated by commas: "1400, 800, 600, 0".

    Raises:
        UsageError: a part is not a number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--camera-params {text!r} are not numbers separated by commas.") from error


def parse_rigs(text: str) -> RigFile:
    """Read the file of `--rig-config`.

    Raises:
        InputError: as from `read_rigs`.
    """
    return read_rigs(Path(text))


@dataclass(frozen=True)
class CameraOptions:
    """How photographs share cameras. `params` come from the user and hold for every image.

    rigs: cameras that move together; those images share a camera whose names begin alike.
    """

    panel: ClassVar[Panel] = Panel.mapping

    mode: Annotated[
        CameraMode,
        Option(
            "Which photographs share a camera. auto: those of a folder with the same size whose EXIF data tell "
            "the same maker, model, lens and focal length, or nothing.",
            name="camera-mode",
        ),
    ] = CameraMode.auto
    # COLMAP's choice: one focal length and one radial term are what uncalibrated photographs determine.
    model: Annotated[str, Option("COLMAP camera model.", name="camera-model")] = "SIMPLE_RADIAL"
    params: Annotated[
        tuple[float, ...] | None,
        Option(
            "Known intrinsics in the model's order; the mapper keeps them fixed.",
            metavar="P1,P2,...",
            name="camera-params",
            parse=parse_camera_params,
        ),
    ] = None
    rigs: Annotated[
        RigFile | None,
        Option(
            "Cameras that move together, in COLMAP's JSON: images whose names agree behind their cameras' "
            "prefixes were taken at one time. Poses within the rig may be missing for --mapper global alone.",
            metavar="FILE",
            name="rig-config",
            parse=parse_rigs,
        ),
    ] = None


@dataclass(frozen=True)
class VerifyOptions:
    """What a pair has to show to be believed. The defaults are COLMAP's for SIFT (TwoViewGeometryOptions)."""

    panel: ClassVar[Panel] = Panel.mapping

    method: Annotated[
        Verifier,
        Option(
            "Geometric verification: magsac (OpenCV, several times faster) or colmap (COLMAP's own).", name="verify"
        ),
    ] = Verifier.magsac
    max_error_px: Annotated[
        float, Option("Distance in px from the epipolar line that an inlier may have.", min=0, name="max-error")
    ] = 4.0
    min_inliers: Annotated[int, Option("Inliers below which a pair is not used. Higher drops weak pairs.", min=1)] = 15
    # A count alone is no bar: matches shuffled within pairs of photographs, which no motion explains, still
    # gave 15 inliers in every pair, and up to 0.2 (a facade) or 0.3 (video) of them where the overlap was small.
    min_inlier_ratio: float = 0.3
    seed: int = 0
    num_threads: int | None = None

    @property
    def threads(self) -> int:
        return self.num_threads or os.cpu_count() or 1
