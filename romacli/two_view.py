"""Match two photographs directly, without a job: for `romacli show` and for scripts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from romacli.errors import InputError
from romacli.geometry.coordinates import to_colmap_pixels
from romacli.geometry.warp import warp_fields
from romacli.images.decode import read_image
from romacli.matchers.compact import CompactOptions, compact
from romacli.matchers.matcher import DenseMatcher, Matcher, StagedMatcher, pair_seed
from romacli.matchers.registry import load_matcher
from romacli.types import CompactWarp, Correspondences, DenseMatch, Features, Rejected, Size

NUM_MATCHES = 2000


@dataclass(frozen=True)
class TwoView:
    """A pair of photographs and its matches.

    images: RGB uint8 (H, W, 3); targets: for A to B and B to A, (H, W, 2) float32 points in the other image, COLMAP
    pixels; certainties: (H, W) float32 in [0, 1] for both; matches: a sample of the cells that pass the check in both
    directions, with the network's certainty; is_rejected: a job would drop the pair for its small overlap.
    """

    images: tuple[np.ndarray, np.ndarray]
    targets: tuple[np.ndarray, np.ndarray]
    certainties: tuple[np.ndarray, np.ndarray]
    matches: Correspondences
    overlap: float
    is_rejected: bool


def match_two(
    path_A: str | Path,
    path_B: str | Path,
    matcher: Matcher | None = None,
    *,
    num_matches: int = NUM_MATCHES,
    seed: int = 0,
) -> TwoView:
    """Match two photographs.

    Args:
        matcher: by default, that of the commands.
        num_matches: upper bound; matches are spread over the first photograph.

    Raises:
        InputError: the matcher returns points instead of a warp, or (ImageError) a photograph cannot be read.
    """
    path_A, path_B, matcher = Path(path_A), Path(path_B), matcher or load_matcher()
    if not isinstance(matcher, DenseMatcher):
        raise InputError(f"{matcher.name} gives points only. Choose a dense matcher from `romacli models list`.")
    images = read_image(path_A), read_image(path_B)
    features_A, features_B = (matcher.encode([matcher.prepare(image)])[0] for image in images)
    dense = matcher.warp([(features_A, features_B)])[0]
    record = compact(dense, CompactOptions(min_certainty=matcher.settings.get("min_certainty", 0.0)))
    targets, certainties = _maps(dense)
    drawn = sample_warp(record, pair_seed(path_A.name, path_B.name, seed=seed), num_matches)
    return TwoView(
        images,
        targets,
        certainties,
        _with_certainty(drawn, certainties[0], record.size_A),
        record.overlap,
        record.overlap < matcher.settings.get("min_overlap", 0.0) or _ends_early(matcher, features_A, features_B),
    )


def _ends_early(matcher: Matcher, features_A: Features, features_B: Features) -> bool:
    """Whether a job would skip refining the pair."""
    if not isinstance(matcher, StagedMatcher):
        return False
    return isinstance(matcher.start([(features_A, features_B)])[0], Rejected)


def _maps(dense: DenseMatch) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Targets in COLMAP pixels and certainties of both directions, on the host."""
    assert dense.warp_BA is not None
    assert dense.certainty_BA is not None
    targets = to_colmap_pixels(dense.warp_AB, dense.size_B), to_colmap_pixels(dense.warp_BA, dense.size_A)
    return (
        (targets[0].float().cpu().numpy(), targets[1].float().cpu().numpy()),
        (dense.certainty_AB.float().cpu().numpy(), dense.certainty_BA.float().cpu().numpy()),
    )


def sample_warp(record: CompactWarp, seed: int, num_matches: int = NUM_MATCHES) -> Correspondences:
    """Points spread over A and their targets by the checked warp, with its weights."""
    forward, _ = warp_fields(record)
    places = forward.scatter(num_matches, np.random.default_rng(seed))
    there = forward.at(places)
    return Correspondences(places, there.targets, there.weights)


def _with_certainty(drawn: Correspondences, certainty: np.ndarray, size_A: Size) -> Correspondences:
    """The same matches, scored by the network's certainty (H, W)."""
    height, width = certainty.shape
    columns, rows = (drawn.keypoints0 * (width, height) / size_A).astype(int).T
    scores = certainty[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return Correspondences(drawn.keypoints0, drawn.keypoints1, scores)
