"""Evidence against a finished model, and advice, shared by the mapping command and the report.

Pure: values in, sentences out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from romacli.colmap.reading import Model
from romacli.keypoints.checks import connected
from romacli.mapping.georeference import GpsFit
from romacli.types import Pair, canonical
from romacli.words import counted_of, first_few

# Thresholds chosen by judgement: below these a model should be inspected before use.
_LARGE_ERROR_PX = 2.0
_FEW_REGISTERED = 0.5
# Phone GPS is off by 5 to 10 m; a model off by more than that, and by this fraction of the extent, is wrong.
_GPS_NOISE_M, _GPS_SHARE = 10.0, 0.1
# In a walk, a step between verified neighbours this many times the usual one.
_JUMP = 8.0
_FEWEST_STEPS = 8
_SEQUENTIAL = 0.9
_LITTLE_AGREEMENT = 0.75
_WEAK = 0.1
_NAMES_SHOWN = 4


@dataclass(frozen=True)
class Placed:
    """A model compared with its input.

    images: of the job; missing: names of those not in the largest model; elsewhere: of those in smaller models;
    left_out: of those that had a place in a model and were left out on purpose; alone: of those missing that no chain
    of verified pairs connects with the largest model.
    gps_median_m, gps_extent_m: of `GpsFit`, None without positions. agreement: fraction of warp cells consistent around
    image triplets, None if unknown. weakly_joined: sizes of the groups connected only by pairs with a tenth of the
    usual inliers, empty if all images are well connected. guessed: names of images with a guessed focal length that the
    mapper did not refine. shares_camera: whether all images of the job share one.
    """

    images: int
    missing: Sequence[str]
    mean_reprojection_error: float
    gps_median_m: float | None = None
    gps_extent_m: float | None = None
    jumps: Sequence[str] = ()
    agreement: float | None = None
    weakly_joined: Sequence[int] = ()
    guessed: Sequence[str] = ()
    shares_camera: bool = False
    left_out: Collection[str] = ()
    elsewhere: Collection[str] = ()
    alone: Collection[str] = ()

    @property
    def registered(self) -> int:
        return self.images - len(self.missing)


def doubts(placed: Placed) -> list[str]:
    """The evidence against the model, as clauses without full stops."""
    found = []
    if placed.gps_median_m is not None and placed.gps_extent_m is not None:
        limit = max(_GPS_NOISE_M, _GPS_SHARE * placed.gps_extent_m)
        if placed.gps_median_m > limit:
            found.append(
                f"its cameras are {placed.gps_median_m:.0f} m (median) from the GPS positions of their photographs, "
                f"which extend over {placed.gps_extent_m:.0f} m"
            )
    if placed.jumps:
        found.append(
            f"the camera jumps at {first_few(placed.jumps, _NAMES_SHOWN)}, although these match the previous photograph"
        )
    if placed.agreement is not None and placed.agreement < _LITTLE_AGREEMENT:
        found.append(f"only {placed.agreement:.0%} of warp cells are consistent around image triplets")
    if len(placed.weakly_joined) > 1:
        sizes = " and ".join(map(str, placed.weakly_joined[:_NAMES_SHOWN]))
        found.append(f"groups of {sizes} images are connected only by pairs with few inliers")
    return found


def advice(placed: Placed) -> list[str]:
    """Warnings, each with advice."""
    single = "" if placed.shares_camera else ", or --camera-mode single if one camera took them all"
    found = _about_missing(placed, single)
    if placed.guessed:
        found.append(
            f"{counted_of(len(placed.guessed), placed.registered, 'placed image', 'has', 'have')} a guessed focal "
            "length, as neither EXIF data nor pairs determine it and it was not refined: "
            f"{first_few(placed.guessed, _NAMES_SHOWN)}. Their poses are as uncertain: give the true --camera-params"
            f"{single}."
        )
    if placed.mean_reprojection_error > _LARGE_ERROR_PX:
        found.append(
            f"The mean reprojection error is {placed.mean_reprojection_error:.2f} px. Wrong matches or wrong "
            "intrinsics are likely: raise --min-certainty, or give --camera-params."
        )
    if against := doubts(placed):
        found.append(
            f"The model may be wrong: {'; '.join(against)}. Check it against the real scene; other --camera-params, "
            "more pairs between distant photographs, or a higher --min-certainty may help."
        )
    return found


def _about_missing(placed: Placed, single: str) -> list[str]:
    """Sentences with advice on images that are not in the largest model: in smaller ones, not matched, not placed."""

    def told(names: Sequence[str], where: str) -> str:
        count = counted_of(len(names), placed.images, "image", "is", "are")
        return f"{count} {where}: {first_few(names, _NAMES_SHOWN)}."

    found, out = [], [name for name in placed.missing if name not in placed.left_out]
    unplaced = [name for name in out if name not in placed.elsewhere]
    where = "in no model" if placed.elsewhere else "not in the model"
    where += ", besides those left out" if len(out) < len(placed.missing) else ""
    if elsewhere := [name for name in out if name in placed.elsewhere]:
        found.append(
            f"{told(elsewhere, 'in smaller models')} If all show one place, add photographs that connect its parts."
        )
    if alone := [name for name in unplaced if name in placed.alone]:
        found.append(
            f"{told(alone, where)} No verified pairs connect them with the largest model: match more pairs, or add "
            "photographs that connect them."
        )
    if joined := [name for name in unplaced if name not in placed.alone]:
        if len(joined) > (1 - _FEW_REGISTERED) * placed.images:
            advised = (
                f"The mapper failed on most of them: try --mapper global, or give the true --camera-params{single}. "
                "Check the poses of any model that results."
            )
        else:
            advised = (
                "Inspect the pairs of such images; add photographs that connect them or, unless places look alike, "
                "try --mapper global."
            )
        found.append(f"{told(joined, where)} {advised}")
    return found


def placed_of(
    model: Model,
    names: Sequence[str],
    inliers: Mapping[Pair, int],
    *,
    gps: GpsFit | None = None,
    agreement: float | None = None,
    guessed: Sequence[str] = (),
    shares_camera: bool = False,
    left_out: Collection[str] = (),
    elsewhere: Collection[str] = (),
) -> Placed:
    """Compare the largest model of a job with its verified pairs.

    Args:
        names: of all images, in the order they were taken if they form a sequence.
        inliers: of the verified pairs; if empty, they are unknown.
        elsewhere: names of the images of smaller models.
    """
    has_points = bool(len(model.errors))
    missing = tuple(name for name in names if name not in model.poses)
    joined = {name for group in connected(inliers) if not model.poses.keys().isdisjoint(group) for name in group}
    return Placed(
        images=len(names),
        missing=missing,
        mean_reprojection_error=float(model.errors.mean()) if has_points else 0.0,
        gps_median_m=gps.median_m if gps else None,
        gps_extent_m=gps.extent_m if gps else None,
        jumps=jumps_along({name: pose.centre for name, pose in model.poses.items()}, names, inliers),
        agreement=agreement,
        weakly_joined=weak_groups({pair: count for pair, count in inliers.items() if count}),
        guessed=guessed,
        shares_camera=shares_camera,
        left_out=left_out,
        elsewhere=elsewhere,
        alone=[name for name in missing if name not in joined] if inliers else (),
    )


def jumps_along(centres: Mapping[str, np.ndarray], names: Sequence[str], joined: Mapping[Pair, int]) -> tuple[str, ...]:
    """Photographs far from the previous one, if photographs form a sequence.

    Args:
        centres: (3,) by name, of the images in the model.
        names: in the order they were taken.
        joined: verified pairs.

    Returns:
        Names; none unless the photographs form a sequence, in which nearly all neighbours match.
    """
    pairs = {canonical(pair) for pair, count in joined.items() if count}
    placed = [name for name in names if name in centres]
    steps = [(a, b) for a, b in zip(placed, placed[1:], strict=False) if canonical((a, b)) in pairs]
    if len(steps) < _FEWEST_STEPS or len(steps) < _SEQUENTIAL * (len(placed) - 1):
        return ()
    lengths = np.array([np.linalg.norm(centres[b] - centres[a]) for a, b in steps])
    return tuple(b for (_, b), length in zip(steps, lengths, strict=True) if length > _JUMP * np.median(lengths) > 0)


def weak_groups(inliers: Mapping[Pair, int]) -> tuple[int, ...]:
    """Sizes of the groups of two or more images that stay connected without pairs of few inliers, largest first.

    Empty if that leaves one group, or if not all images were connected before.
    """
    if not inliers:
        return ()
    bar = max(1, round(_WEAK * float(np.median(list(inliers.values())))))
    strong = tuple(len(group) for group in connected(inliers, fewest=bar) if len(group) > 1)
    return strong if len(connected(inliers)) == 1 and len(strong) > 1 else ()
