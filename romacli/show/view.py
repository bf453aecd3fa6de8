"""The view of a pair: two photographs, the warps between them and the matches.

Read from a job's files or made from a fresh match; drawn in `picture.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from romacli.errors import InputError, StoreError
from romacli.geometry.estimation import estimate_fundamental
from romacli.geometry.warp import decode_targets
from romacli.images.decode import read_image
from romacli.matchers.matcher import pair_seed
from romacli.store.hloc import FeaturesFile, MatchesFile
from romacli.store.journal import Journal
from romacli.store.layout import Layout
from romacli.two_view import TwoView, sample_warp
from romacli.types import CompactWarp, Correspondences, Pair, Size
from romacli.words import counted_of

from .folder import open_folder

# Maximum error of two-view geometry, as in `colmap-import`.
MAX_ERROR_PX = 4.0


@dataclass(frozen=True)
class WarpMap:
    """One direction of a warp over a whole image, at any resolution.

    targets: (H, W, 2) float32, the point in the other image for the centre of each of H x W cells, COLMAP pixels;
    certainty: (H, W) float32 in [0, 1]; opacity: (H, W) float32 in [0, 1], how strongly a cell is shown.
    """

    targets: np.ndarray
    certainty: np.ndarray
    opacity: np.ndarray


@dataclass(frozen=True)
class PairView:
    """A pair to be drawn.

    images: RGB uint8 (H, W, 3) of each; warps: A to B and B to A, None if there are only points or the pair was
    rejected; matches: in COLMAP pixels of `images`; quantity: name of the values between 0 and 1; note: for the
    reader.
    """

    names: Pair
    images: tuple[np.ndarray, np.ndarray]
    warps: tuple[WarpMap, WarpMap] | None
    matches: Correspondences
    quantity: str
    note: str


def view_of_match(names: Pair, match: TwoView) -> PairView:
    """The view of a freshly matched pair."""
    forward, backward = (
        WarpMap(targets, certainty, certainty)
        for targets, certainty in zip(match.targets, match.certainties, strict=True)
    )
    note = f"overlap {match.overlap:.3f}" + (", too low: a job would reject this pair" if match.is_rejected else "")
    return PairView(names, match.images, (forward, backward), match.matches, "certainty", note)


def view_in_job(layout: Layout, photographs: Pair, images: Path | None = None) -> PairView:
    """The view of a pair in a job's folder.

    Args:
        photographs: their names in the job, or file paths. images: the folder of the photographs; by default the one
            used for matching.

    Raises:
        InputError: there is no job, the photographs are not in it, are not matched yet, or are missing.
    """
    job = open_folder(layout)
    pair = job.name_of(photographs[0]), job.name_of(photographs[1])
    folder = images or job.photographs
    if folder is None:
        raise InputError(
            f"{layout.root} does not record where its photographs are. Give their folder with --images DIR."
        )
    if lacking := [name for name in pair if not (folder / name).exists()]:
        raise InputError(f"{folder} lacks {lacking[0]}. Put it back, or give their folder with --images DIR.")
    with job.journal() as journal:
        return view_of_job(layout, journal, pair, folder)


def view_of_job(layout: Layout, journal: Journal, pair: Pair, images: Path) -> PairView:
    """The view of a pair from a job's journal and hloc files; without these files, matches are sampled from its warp.

    Raises:
        InputError: the job has not matched the pair.
        ImageError: a photograph cannot be read.
        StoreError: its record is damaged.
    """
    if pair not in journal:
        raise InputError(
            f"{layout.root} contains no match of {pair[0]} {pair[1]}. Finish the job with `romacli match`, or omit the "
            "folder to match the two photographs now."
        )
    pixels = read_image(images / pair[0]), read_image(images / pair[1])
    record = journal.read(pair)
    if isinstance(record, Correspondences):
        return PairView(pair, pixels, None, record, "score", "points only")
    if not isinstance(record, CompactWarp):
        return PairView(pair, pixels, None, none_at_all(), "weight", f"rejected, overlap {record.overlap:.3f}")
    for name, picture, size in zip(pair, pixels, (record.size_A, record.size_B), strict=True):
        if (picture.shape[1], picture.shape[0]) != size:
            raise InputError(
                f"{images / name} is {picture.shape[1]}x{picture.shape[0]} px, but was {size[0]}x{size[1]} when it "
                "was matched. Restore the photograph."
            )
    warps = (
        _stored_map(record.target_AB, record.weight_AB, record.size_B),
        _stored_map(record.target_BA, record.weight_BA, record.size_A),
    )
    note = f"overlap {record.overlap:.2f}"
    if layout.features.exists() and layout.matches.exists():
        return PairView(pair, pixels, warps, stored_matches(layout, pair), "weight", note)
    drawn = sample_warp(record, pair_seed(*pair, seed=0))
    return PairView(pair, pixels, warps, drawn, "weight", f"{note}, no keypoints yet: a sample of the warp")


def _stored_map(target: np.ndarray, weight: np.ndarray, target_size: Size) -> WarpMap:
    """One direction of a stored warp; its cells have passed the check, so they are shown at full opacity."""
    return WarpMap(decode_targets(target, target_size), weight / np.float32(255), (weight > 0).astype(np.float32))


def stored_matches(layout: Layout, pair: Pair) -> Correspondences:
    """A pair's matches in the hloc files, as COLMAP pixels; none if these files do not exist."""
    try:
        with FeaturesFile(layout.features) as features, MatchesFile(layout.matches) as matches:
            if pair not in matches:
                return none_at_all()
            found = matches.matches(*pair)
            places = [features.keypoints(name).xy[found.indices[:, side]] for side, name in enumerate(pair)]
    except InputError:
        return none_at_all()
    except IndexError as error:
        raise StoreError(
            f"{layout.matches} and {layout.features} are from different runs. Rebuild them with `romacli aggregate`."
        ) from error
    return Correspondences(places[0], places[1], found.scores)


def none_at_all() -> Correspondences:
    """No correspondences."""
    return Correspondences(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))


def inliers_of(view: PairView) -> PairView:
    """The same view with only the inliers of an epipolar geometry, found by MAGSAC."""
    matches = view.matches
    _, inliers = estimate_fundamental(matches.keypoints0, matches.keypoints1, max_error_px=MAX_ERROR_PX, seed=0)
    kept = Correspondences(matches.keypoints0[inliers], matches.keypoints1[inliers], matches.scores[inliers])
    note = counted_of(int(inliers.sum()), len(matches), "match", "is an inlier", "are inliers", "matches")
    return replace(view, matches=kept, note=f"{view.note}, {note}")
