"""The coarse stage alone: its encodings are those used for matching, and it separates similar from unrelated pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_roma import photographs, small_matcher

from romacli.images.decode import read_image
from romacli.matchers.matcher import CoarseMatcher
from romacli.matchers.registry import load_matcher
from romacli.networks.parts.pooling import generalized_mean

SCENE = Path(__file__).resolve().parents[2] / "examples" / "scene" / "images"


@pytest.mark.parametrize("power", [1.0, 3.0, 8.0])
def test_the_generalized_mean_is_its_formula(power: float) -> None:
    maps = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)) * 50
    expected = np.array(
        [
            [np.mean([np.sign(x) * abs(x) ** power for x in places.ravel()]) for places in image]
            for image in maps.double().numpy()
        ]
    )
    expected = np.sign(expected) * np.abs(expected) ** (1 / power)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(generalized_mean(maps, power).numpy(), expected, atol=1e-5)


def test_a_generalized_mean_of_nothing_is_nothing() -> None:
    assert not generalized_mean(torch.zeros(1, 3, 2, 2), 3.0).any()


@pytest.mark.parametrize("name", ["roma", "mini"])
def test_the_coarse_stage_encodes_what_matching_uses(name: str) -> None:
    matcher = small_matcher() if name == "roma" else load_matcher("mini")
    assert isinstance(matcher, CoarseMatcher)
    prepared = [matcher.prepare(image) for image in photographs(3)]
    coarse, whole = matcher.encode_coarse(prepared), matcher.encode(prepared)
    for mine, full in zip(coarse, whole, strict=True):
        assert mine.nbytes < full.nbytes
        for key, tensor in mine.tensors.items():
            torch.testing.assert_close(tensor, full.tensors[key])
    rows = matcher.describe(prepared)
    assert rows.dtype == np.float32
    assert rows.shape[0] == 3
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    overlaps = matcher.overlap([(coarse[0], coarse[1]), (coarse[1], coarse[2])])
    assert len(overlaps) == 2
    assert all(0 <= overlap <= 1 for overlap in overlaps)
    # In either order, and alone or in a batch, the score is the same.
    assert matcher.overlap([(coarse[1], coarse[0])])[0] == pytest.approx(overlaps[0], abs=0.01)


def test_neighbours_overlap_more_than_the_ends_of_a_walk_and_than_strangers() -> None:
    matcher = load_matcher("mini")
    images = [read_image(SCENE / f"court_{number:02}.jpg") for number in (7, 8, 15)]
    stranger = np.random.default_rng(0).integers(0, 255, images[0].shape, np.uint8)
    near, next_to_it, far, noise = matcher.encode_coarse([matcher.prepare(image) for image in [*images, stranger]])
    itself, neighbours, ends, nothing = matcher.overlap([(near, near), (near, next_to_it), (near, far), (near, noise)])
    assert itself > 0.9
    assert itself > neighbours > ends > nothing
    assert nothing < 0.02
