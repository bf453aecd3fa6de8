"""Pairs whose first stage fails: started from verified sparse matches, or left alone if nothing verifies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from support.blobs import SIZE, save
from support.homography import HomographyMatcher, image_digest

from romacli.errors import InputError, UsageError
from romacli.geometry.scattered import spread
from romacli.geometry.turns import turn_points_back
from romacli.images.decode import read_image
from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import MATCHERS
from romacli.run.match import images_that_fit, match_images
from romacli.run.options import MatchOptions, Try
from romacli.run.retries.retry import check_retries
from romacli.run.retries.sparse import FileMatches
from romacli.store.hloc import write_features, write_matches
from romacli.types import CompactWarp, Features, ImageList, Keypoints, Matches, PairList, PairResult, Rejected

PAIR = ("0.png", "1.png")


class BlindMatcher(HomographyMatcher):
    """Sees nothing until points show it where to look; then it knows the plane."""

    starts_from_points = True

    def __init__(self, known: dict[str, np.ndarray]) -> None:
        super().__init__(known)
        self.points: list[tuple[np.ndarray, np.ndarray]] = []

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[CompactWarp | Rejected]:
        return [Rejected(0.0) for _ in pairs]

    def match_from(self, pairs, points):
        self.points += points
        return super().match(list(pairs), [0] * len(pairs))


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
    result, matcher = run(tmp_path, shifts, rescue=Try.always)
    assert isinstance(result, CompactWarp)
    assert result.found_by == "rescue"
    first, second = matcher.points[0]
    assert len(first) >= 30
    assert (np.abs(first - second - (80, 40)).max(axis=1) < 2).mean() > 0.9


def test_verified_matches_make_less_overlap_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shifts = {"0.png": (10, 20), "1.png": (90, 60)}
    for name, shift in shifts.items():
        save(tmp_path, name, 0, shift)
    full, _ = run(tmp_path, shifts, rescue=Try.always)
    assert isinstance(full, CompactWarp)
    for factor, kind in ((3.9, CompactWarp), (4.1, Rejected)):
        settings = {**BlindMatcher({}).settings, "min_overlap": factor * full.overlap}
        monkeypatch.setattr(BlindMatcher, "settings", settings, raising=False)
        assert isinstance(run(tmp_path, shifts, rescue=Try.always)[0], kind)


def test_photographs_of_different_places_stay_rejected(tmp_path: Path) -> None:
    shifts = {"0.png": (10, 20), "1.png": (90, 60)}
    for seed, (name, shift) in enumerate(shifts.items()):
        save(tmp_path, name, seed, shift)
    result, matcher = run(tmp_path, shifts, rescue=Try.always)
    assert isinstance(result, Rejected)
    assert not matcher.points


def given_matches(folder: Path, count: int, *, size: tuple[int, int] = SIZE) -> Path:
    """Matches of the pair at random positions, offset by (80, 40), in files as hloc writes them."""
    rng = np.random.default_rng(0)
    xy = rng.uniform((90, 50), (310, 230), (count, 2)).astype(np.float32)
    ones = np.ones(count, np.float32)
    items = [(PAIR[0], Keypoints(xy, ones), size), (PAIR[1], Keypoints(xy - np.float32((80, 40)), ones), size)]
    folder.mkdir()
    write_features(folder / "features.h5", items, provenance={})
    rows = np.repeat(np.arange(count, dtype=np.int32)[:, None], 2, axis=1)
    write_matches(folder / "matches.h5", [(PAIR, Matches(rows, ones), count)], provenance={})
    return folder


def unlike(folder: Path) -> dict[str, tuple[int, int]]:
    """Two photographs with different textures, so that SIFT finds nothing."""
    shifts = {"0.png": (10, 20), "1.png": (90, 60)}
    for seed, (name, shift) in enumerate(shifts.items()):
        save(folder, name, seed, shift)
    return shifts


def test_matches_in_files_begin_a_rejected_pair(tmp_path: Path) -> None:
    shifts = unlike(tmp_path)
    result, matcher = run(tmp_path, shifts, rescue_from=given_matches(tmp_path / "given", 60))
    assert isinstance(result, CompactWarp)
    assert result.found_by == "rescue"
    first, second = matcher.points[0]
    assert len(first) > 50
    np.testing.assert_allclose(first - second, np.broadcast_to((80.0, 40.0), first.shape), atol=1e-3)


def test_matches_in_files_are_of_the_photographs_as_stored(tmp_path: Path) -> None:
    sideways = FileMatches(given_matches(tmp_path / "given", 60), {PAIR[0]: 1})
    first, second = sideways.find(PAIR, (SIZE[::-1], SIZE))
    back = turn_points_back(first, SIZE, 1)
    np.testing.assert_allclose(back - second, np.broadcast_to((80.0, 40.0), first.shape), atol=1e-3)


def test_too_few_matches_in_files_rescue_nothing(tmp_path: Path) -> None:
    shifts = unlike(tmp_path)
    for number, count in enumerate((0, 29)):
        result, matcher = run(tmp_path, shifts, rescue_from=given_matches(tmp_path / str(number), count))
        assert isinstance(result, Rejected)
        assert not matcher.points


def test_only_retries_that_keep_features_share_their_memory(tmp_path: Path) -> None:
    fits = [
        images_that_fit(BlindMatcher({}), MatchOptions(cache_gb=0.01, **asked), 100_000)
        for asked in ({}, {"rescue_from": tmp_path}, {"rescue": Try.always})
    ]
    assert fits == [100, 100, 50]


def test_files_of_other_photographs_are_refused(tmp_path: Path) -> None:
    shifts = unlike(tmp_path)
    matcher = BlindMatcher({})
    given = MatchOptions(rescue_from=given_matches(tmp_path / "given", 60, size=(640, 480)))
    with pytest.raises(InputError, match=r"no keypoints of these photographs"):
        check_retries(matcher, given, ["other.png"])
    with pytest.raises(InputError, match=r"0.png is 320x240 px, but another size"):
        run(tmp_path, shifts, rescue_from=given.rescue_from)
    with pytest.raises(InputError, match=r"matches.h5 cannot be read: No such file"):
        check_retries(matcher, MatchOptions(rescue_from=tmp_path))


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
        result = matcher.match_from([(features, features)], [(places, places)])[0]
    # Untrained refiners leave the warp at its start.
    assert isinstance(result, CompactWarp)
    assert result.overlap > 0.5


def test_a_matcher_that_cannot_begin_from_points_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--rescue always needs a matcher that can start from points"):
        check_retries(HomographyMatcher({}), MatchOptions(rescue=Try.always))
