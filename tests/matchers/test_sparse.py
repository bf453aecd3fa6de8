"""Matchers that describe one image at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from romacli.errors import EstimationError, ImageError, UsageError
from romacli.geometry.turns import turn_image
from romacli.matchers.describers import nearest
from romacli.matchers.describers.corners import corners
from romacli.matchers.describers.nearest import mutual_nearest
from romacli.matchers.describers.sparse import Described, SparseMatcher
from romacli.matchers.options import MatcherOptions, SparseOptions
from romacli.matchers.registry import load_matcher, load_seeded
from romacli.store.hloc import write_features
from romacli.types import Correspondences, Keypoints, Rejected


def unit(count: int, seed: int, channels: int = 16) -> Tensor:
    random = torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(random, dim=1)


def by_hand(a: Tensor, b: Tensor) -> list[list[int]]:
    similarity = (a @ b.T).numpy()
    best, back = similarity.argmax(1), similarity.argmax(0)
    return [[row, int(best[row])] for row in range(len(a)) if back[best[row]] == row]


def test_a_batch_of_images_with_differing_counts_is_matched_as_one_by_one() -> None:
    first, second = [unit(30, 0), unit(20, 1), unit(25, 2)], [unit(15, 3), unit(40, 4), unit(25, 5)]
    for (rows, scores), a, b in zip(mutual_nearest(first, second), first, second, strict=True):
        assert rows.tolist() == by_hand(a, b)
        torch.testing.assert_close(scores, (a[rows[:, 0]] * b[rows[:, 1]]).sum(1))


def test_opposite_descriptors_are_nearer_than_what_pads_a_short_image() -> None:
    a = unit(1, 0)
    found = mutual_nearest([a, unit(5, 1)], [-a, unit(7, 2)])
    assert found[0][0].tolist() == [[0, 0]]
    assert found[0][1].tolist() == [0.0]


def test_an_image_without_keypoints_matches_nothing() -> None:
    found = mutual_nearest([unit(0, 0), unit(5, 1)], [unit(3, 2), unit(5, 1)])
    assert [len(rows) for rows, _ in found] == [0, 5]


def test_of_two_keypoints_that_look_the_same_the_first_matches() -> None:
    a = unit(1, 0)
    assert mutual_nearest([torch.cat([a, a])], [a])[0][0].tolist() == [[0, 0]]


def test_ratio_and_least_similarity_drop_what_is_not_clear() -> None:
    a = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    b = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1, 0], [1.0, -0.11, 0], [0, 0.5, 0.9]]), dim=1)
    assert mutual_nearest([a], [b])[0][0].tolist() == [[0, 0], [1, 2]]
    assert mutual_nearest([a], [b], ratio=0.8)[0][0].tolist() == [[1, 2]]
    assert mutual_nearest([a], [b], least=0.9)[0][0].tolist() == [[0, 0]]


def test_corners_are_where_they_are_at_any_size() -> None:
    image = np.full((300, 400, 3), 40, np.uint8)
    image[100:180, 120:260] = 200
    places = np.array([[120, 100], [120, 180], [260, 100], [260, 180]], np.float32)
    for size in (1, 4):
        found = corners(cv2.resize(image, None, fx=size, fy=size, interpolation=cv2.INTER_CUBIC)).xy[:4] / size
        found = found[np.lexsort(found.T[::-1].round(-1))]
        assert np.abs(found - places).max() < 2


def test_corners_as_strong_as_their_neighbours_are_one() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[40:42, 40:42] = 255
    xy = corners(image).xy
    assert len(xy) > 0
    apart = np.linalg.norm(xy[:, None] - xy, axis=-1)
    assert apart[~np.eye(len(xy), dtype=bool)].min(initial=9) > 3


def test_corners_of_a_flat_image_are_none() -> None:
    assert len(corners(np.full((80, 90, 3), 7, np.uint8))) == 0


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(3)
    noise = sum(
        cv2.resize(rng.uniform(0, 255, (side, side, 3)), (640, 480), interpolation=cv2.INTER_CUBIC) for side in (6, 40)
    )
    return np.clip(noise / 2, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def matcher() -> SparseMatcher:
    found = load_matcher("mini-sparse", MatcherOptions(device="cpu", sparse=SparseOptions(top_k=500)))
    assert isinstance(found, SparseMatcher)
    return found


def test_minis_trunk_finds_where_a_picture_moved(matcher: SparseMatcher, picture: np.ndarray) -> None:
    shift = np.array([64, -32])
    moved = cv2.warpAffine(picture, np.float64([[1, 0, shift[0]], [0, 1, shift[1]]]), (640, 480), borderMode=2)
    a, b = (matcher.encode([matcher.prepare(image)])[0] for image in (picture, moved))
    found = matcher.match([(a, b)], [0])[0]
    assert isinstance(found, Correspondences)
    error = np.linalg.norm(found.keypoints0 + shift - found.keypoints1, axis=1)
    assert len(found) > 100
    assert np.mean(error < 3) > 0.8
    assert a.tensors["keypoints"].shape[1] <= 500
    assert a.nbytes < 4 * 500 * 140


def test_a_pair_with_too_small_a_share_of_matches_is_rejected(picture: np.ndarray) -> None:
    matcher = load_matcher("mini-sparse", MatcherOptions(device="cpu", min_overlap=1.0))
    flat = np.full_like(picture, 90)
    features = [matcher.encode([matcher.prepare(image)])[0] for image in (picture, picture[::-1], flat)]
    assert isinstance(matcher.match([(features[0], features[1])], [0])[0], Rejected)
    assert matcher.match([(features[0], features[2])], [0]) == [Rejected(0.0)]


def test_photographs_are_described_at_the_keypoints_of_a_file_whatever_way_up(
    tmp_path: Path, picture: np.ndarray
) -> None:
    xy = np.random.default_rng(0).uniform(20, 440, (50, 2)).astype(np.float32)
    items = [("a.png", Keypoints(xy, np.ones(50, np.float32)), (640, 480))]
    write_features(tmp_path / "given.h5", items, provenance={})
    matcher = load_matcher("mini-sparse", MatcherOptions(device="cpu", keypoints=str(tmp_path / "given.h5")))
    assert isinstance(matcher, SparseMatcher)
    stored, upright = matcher.prepare_named("a.png", picture, 0), turn_image(picture, 1)
    turned = matcher.prepare_named("a.png", upright, 1)
    np.testing.assert_allclose(stored.tensors["xy"][0].numpy(), xy, atol=1e-4)
    np.testing.assert_allclose(turned.tensors["xy"][0].numpy(), np.stack([480 - xy[:, 1], xy[:, 0]], 1), atol=1e-4)
    assert matcher.encode([stored])[0].tensors["descriptors"].shape[1] == 50
    with pytest.raises(ImageError, match="was 640x480 when the keypoints"):
        matcher.prepare_named("a.png", picture[:400], 0)


def test_sift_gives_the_keypoints_and_the_settings_say_so(picture: np.ndarray) -> None:
    options = MatcherOptions(device="cpu", keypoints="sift", sparse=SparseOptions(top_k=9))
    matcher = load_matcher("mini-sparse", options)
    assert matcher.encode([matcher.prepare(picture)])[0].tensors["keypoints"].shape[1] in range(1, 10)
    assert matcher.settings["keypoints"] == "sift"
    assert load_matcher("mini-sparse", MatcherOptions(device="cpu")).settings["keypoints"] == "its own"


def test_small_photographs_are_refused(matcher: SparseMatcher) -> None:
    with pytest.raises(ImageError, match="100x63 px is too small"):
        matcher.prepare(np.zeros((63, 100, 3), np.uint8))
    with pytest.raises(ImageError, match="small.jpg of 100x63 px"):
        matcher.prepare_named("small.jpg", np.zeros((63, 100, 3), np.uint8), 0)


class Broken:
    """Returns NaN descriptors for everything."""

    finds = True
    settings: dict[str, Any] = {}  # noqa: RUF012

    def prepare(self, image: np.ndarray) -> dict[str, Tensor]:
        return {}

    def describe(self, inputs: Mapping[str, Tensor], places: Tensor | None, count: int) -> Described:
        return Described(torch.zeros(1, 2), torch.ones(1), torch.full((1, 4), torch.nan))


def test_descriptors_that_are_not_numbers_are_refused() -> None:
    matcher = SparseMatcher("broken", Broken(), MatcherOptions(), device=torch.device("cpu"))
    with pytest.raises(EstimationError, match="not numbers"):
        matcher.encode([matcher.prepare(np.zeros((64, 64, 3), np.uint8))])


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("mini", MatcherOptions(device="cpu", sparse=SparseOptions(ratio=0.9)), "--ratio"),
        ("mini-sparse", MatcherOptions(device="cpu", min_certainty=0.3), "--min-certainty"),
        ("mini-sparse", MatcherOptions(device="cpu", upsample=False), "--no-upsample"),
    ],
)
def test_options_of_the_other_kind_of_matcher_are_refused(model: str, options: MatcherOptions, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_matcher(model, options)


def test_seeded_weights_make_a_matcher_that_rejects_nothing(picture: np.ndarray) -> None:
    matcher = load_seeded("mini-sparse", MatcherOptions(device="cpu"))
    features = matcher.encode([matcher.prepare(picture)])[0]
    assert isinstance(matcher.match([(features, features)], [0])[0], Correspondences)


def test_tiles_and_batches_find_the_same(monkeypatch):
    sizes = ((300, 257), (1, 40), (40, 1), (0, 5), (130, 300))
    first, second = ([unit(pair[side], 10 * index + side) for index, pair in enumerate(sizes)] for side in (0, 1))
    for options in ({}, {"ratio": 0.95}, {"least": 0.3}):
        expected = mutual_nearest(first, second, **options)
        with monkeypatch.context() as patch:
            patch.setattr(nearest, "CACHED", ())  # as on devices without such a cache
            found = mutual_nearest(first, second, **options)
        for (rows, scores), (tiled_rows, tiled_scores) in zip(found, expected, strict=True):
            assert rows.tolist() == tiled_rows.tolist()
            torch.testing.assert_close(scores, tiled_scores)
