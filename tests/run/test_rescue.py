"""Pairs whose first stage fails: begun from SIFT's verified matches, or left alone where nothing verifies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.homography import HomographyMatcher, image_digest

from romacli.errors import UsageError
from romacli.geometry.scattered import spread
from romacli.images.decode import read_image
from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import MATCHERS
from romacli.run.match import match_images
from romacli.run.options import MatchOptions
from romacli.run.retries.retry import check_retries
from romacli.types import CompactWarp, Features, ImageList, PairList, PairResult, Rejected

SIZE = (320, 240)
PAIR = ("0.png", "1.png")


class BlindMatcher(HomographyMatcher):
    """Sees nothing until points tell it where to look; then it knows the plane."""

    starts_from_points = True

    def __init__(self, known: dict[str, np.ndarray]) -> None:
        super().__init__(known)
        self.points: list[tuple[np.ndarray, np.ndarray]] = []

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[CompactWarp | Rejected]:
        return [Rejected(0.0) for _ in pairs]

    def match_from(self, pairs, points, seeds) -> list[CompactWarp | Rejected]:
        self.points += points
        return super().match(list(pairs), list(seeds))


def save(folder: Path, name: str, seed: int, shift: tuple[int, int]) -> None:
    """A part of a surface of blobs, by the seed of its paint and where it is cut."""
    rng = np.random.default_rng(seed)
    paint = np.full((400, 500), 128, np.uint8)
    for _ in range(900):
        place, radius = rng.integers(0, (500, 400)), int(rng.integers(2, 9))
        cv2.circle(paint, (int(place[0]), int(place[1])), radius, int(rng.integers(0, 256)), -1)
    x, y = shift
    cv2.imwrite(str(folder / name), paint[y : y + SIZE[1], x : x + SIZE[0]])


def run(folder: Path, shifts: dict[str, tuple[int, int]], **options) -> tuple[PairResult, BlindMatcher]:
    known = {}
    for name, (x, y) in shifts.items():
        known[image_digest(read_image(folder / name))] = np.array([[1.0, 0, x], [0, 1.0, y], [0, 0, 1]])
    matcher = BlindMatcher(known)
    results: dict[tuple[str, str], PairResult] = {}
    match_images(ImageList(folder, PAIR), PairList((PAIR,)), matcher, results.update, MatchOptions(**options))
    return results[PAIR], matcher


def test_verified_matches_begin_a_rejected_pair(tmp_path: Path) -> None:
    shifts = {"0.png": (10, 20), "1.png": (90, 60)}
    for name, shift in shifts.items():
        save(tmp_path, name, 0, shift)
    assert isinstance(run(tmp_path, shifts)[0], Rejected)
    result, matcher = run(tmp_path, shifts, rescue=True)
    assert isinstance(result, CompactWarp)
    assert result.found_by == "rescue"
    first, second = matcher.points[0]
    assert len(first) >= 30
    assert (np.abs(first - second - (80, 40)).max(axis=1) < 2).mean() > 0.9


def test_photographs_of_different_places_stay_rejected(tmp_path: Path) -> None:
    shifts = {"0.png": (10, 20), "1.png": (90, 60)}
    for seed, (name, shift) in enumerate(shifts.items()):
        save(tmp_path, name, seed, shift)
    result, matcher = run(tmp_path, shifts, rescue=True)
    assert isinstance(result, Rejected)
    assert not matcher.points


def test_a_warp_is_spread_between_points() -> None:
    rng = np.random.default_rng(0)
    here = rng.uniform(-1, 1, (60, 2))
    matrix, shift = np.array([[0.8, 0.1], [-0.2, 0.9]]), np.array([0.05, -0.1])
    warp, distance = spread(here, here @ matrix.T + shift, 16)
    centres = (np.arange(16) + 0.5) / 8 - 1
    cells = np.stack(np.meshgrid(centres, centres), axis=-1)
    assert np.abs(warp - (cells @ matrix.T + shift)).max() < 0.1
    assert distance.shape == (16, 16)
    assert (distance >= 0).all()


def test_the_embedded_network_begins_from_points() -> None:
    size = (64, 64)
    matcher = MATCHERS["mini"].seeded(
        MatcherOptions(device="cpu", coarse_resolution=size, upsample=False, min_overlap=0, min_certainty=0), "mini", 0
    )
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    features = matcher.encode([matcher.prepare(image)])[0]
    places = np.random.default_rng(1).uniform(2, 62, (40, 2)).astype(np.float32)
    with torch.inference_mode():
        result = matcher.match_from([(features, features)], [(places, places)], [0])[0]
    # Refiners without training leave the warp where it began.
    assert isinstance(result, CompactWarp)
    assert result.overlap > 0.5


def test_a_matcher_that_cannot_begin_from_points_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--rescue needs a matcher that can begin from points"):
        check_retries(HomographyMatcher({}), MatchOptions(rescue=True))
