"""Options of cameras and of geometric verification."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, ClassVar

from romacli.errors import UsageError
from romacli.options import Choice, Option, Panel

from .rigs import RigFile, read_rigs

PANORAMA = "EQUIRECTANGULAR"  # COLMAP's camera model of full spheres


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
        raise UsageError(f"--camera-params {text!r} must be numbers separated by commas.") from error


@dataclass(frozen=True)
class CameraOptions:
    """How photographs share cameras. `params` are given by the user and apply to every image.

    rigs: cameras that move together; images whose names share a prefix share a camera.
    """

    panel: ClassVar[Panel] = Panel.mapping

    mode: Annotated[
        CameraMode,
        Option(
            "Which photographs share a camera. auto: those in one folder with the same size and the same maker, "
            "model, lens and focal length in their EXIF data; or with no EXIF data, unless their pairs show that focal "
            "lengths differ.",
            name="camera-mode",
        ),
    ] = CameraMode.auto
    # COLMAP's choice: one focal length and one radial term are what uncalibrated photographs determine.
    model: Annotated[str, Option(f"COLMAP camera model; {PANORAMA} for spherical panoramas.", name="camera-model")] = (
        "SIMPLE_RADIAL"
    )
    params: Annotated[
        tuple[float, ...] | None,
        Option(
            "Known intrinsics in the model's order. The mapper keeps them fixed; where only distortion is unknown, "
            "give 0 for it, such as --camera-model OPENCV --camera-params FX,FY,CX,CY,0,0,0,0, and let `reconstruct` "
            "refine it by --refine-intrinsics. PINHOLE is for photographs without distortion.",
            metavar="P1,P2,...",
            name="camera-params",
            parse=parse_camera_params,
        ),
    ] = None
    rigs: Annotated[
        RigFile | None,
        Option(
            "Camera rigs, in COLMAP's JSON format: images whose names match after their cameras' prefixes were taken "
            "simultaneously. Only --mapper global can do without the poses within the rig. Intrinsics of all cameras "
            "are kept fixed like --camera-params.",
            metavar="FILE",
            name="rig-config",
            parse=read_rigs,
        ),
    ] = None

    @property
    def are_given(self) -> bool:
        """Whether the user gave the intrinsics of all images, or at least of all cameras of rigs."""
        rigs = self.rigs.rigs if self.rigs else ()
        return self.params is not None or (bool(rigs) and all(camera.params for rig in rigs for camera in rig))

    def gives(self, name: str) -> bool:
        """Whether the user gave the intrinsics of an image."""
        camera = self.rigs.camera_of(name) if self.rigs else None
        return (self.params if camera is None or camera.model is None else camera.params) is not None


@dataclass(frozen=True)
class VerifyOptions:
    """When a pair counts as verified. The defaults are COLMAP's for SIFT (TwoViewGeometryOptions)."""

    panel: ClassVar[Panel] = Panel.mapping

    method: Annotated[
        Verifier,
        Option(
            "Geometric verification: magsac (OpenCV, several times faster) or colmap (COLMAP's own).", name="verify"
        ),
    ] = Verifier.magsac
    max_error_px: Annotated[
        float, Option("Maximum distance of an inlier from its epipolar line, in px.", min=0, name="max-error")
    ] = 4.0
    min_inliers: Annotated[int, Option("Minimum inliers of a verified pair. Higher drops weak pairs.", min=1)] = 15
    # A count alone is not enough: matches shuffled within pairs, which no motion explains, still gave 15 inliers in
    # every pair, and ratios up to 0.2 (a facade) or 0.3 (video) where the overlap was small.
    min_inlier_ratio: float = 0.3
    seed: int = 0
    num_threads: int | None = None

    @property
    def threads(self) -> int:
        return self.num_threads or os.cpu_count() or 1
