from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from romacli.eval.synthetic import (
    RECIPE,
    evaluate,
    evaluate_matcher,
    fingerprint,
    validation_pairs,
    validation_textures,
)
from romacli.networks.mini import Mini
from romacli.networks.mini_config import MiniConfig
from romacli.synthetic.pairs import SyntheticPair
from romacli.synthetic.textures import Textures
from romacli.types import DenseMatch


def identity_pair(side=64):
    y, x = np.mgrid[:side, :side].astype(np.float32) + np.float32(0.5)
    warp, everywhere = np.stack((x, y), axis=-1), np.ones((side, side), np.bool_)
    image = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return SyntheticPair(image, image, warp, warp, everywhere, everywhere)


class Oracle(Mini):
    """Returns the identity for every pair, shifted by `shift` px of 64 and more certain on the left."""

    def __init__(self, shift: float) -> None:
        super().__init__(MiniConfig(trunk_channels=(8, 8, 8, 8), decoder_width=12, fourier_channels=8))
        self.shift = shift

    def trace(self, encoded):
        trace = super().trace(encoded)
        stages = []
        for stage in trace.stages:
            height, width = stage.warp.shape[1:3]
            y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
            grid = torch.stack((x / width, y / height), dim=-1) * 2 - 1 + torch.tensor([self.shift / 32, 0.0])
            stages.append(type(stage)(stage.start, grid.expand_as(stage.warp), -x.expand_as(stage.certainty)))
        return type(trace)(trace.anchor_logits, trace.correlation, tuple(stages))


@pytest.mark.parametrize(("shift", "shares"), [(0.5, (1, 1, 1)), (2, (0, 1, 1)), (4, (0, 0, 1)), (6, (0, 0, 0))])
def test_share_of_correct_pixels_follows_the_error(shift, shares):
    result = evaluate(Oracle(shift).eval(), [identity_pair()])
    assert (result.pck1, result.pck3, result.pck5) == shares
    assert result.coarse == result.robust == (1 if shift <= 4 else 0)


def test_same_seed_gives_the_same_pairs_and_another_seed_others():
    textures = Textures.load(None, procedural=2, seed=0)
    first, second, other = (validation_pairs(textures, 2, size=64, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first[1].image_B, second[1].image_B)
    assert not np.array_equal(first[1].image_B, other[1].image_B)


class Adapter:
    """A dense matcher that returns the identity on a grid finer than the truth's, shifted by px of 64."""

    def __init__(self, shift: float) -> None:
        self.shift = shift

    def prepare(self, image):
        return image

    def encode(self, images):
        return images

    def warp(self, pairs):
        y, x = torch.meshgrid(torch.arange(80) + 0.5, torch.arange(80) + 0.5, indexing="ij")
        grid = torch.stack((x, y), dim=-1) / 40 - 1 + torch.tensor([self.shift / 32, 0.0])
        return [DenseMatch(grid, 1 - x / 80, None, None, (64, 64), (64, 64)) for _ in pairs]


@pytest.mark.parametrize(("shift", "shares"), [(0.5, (1, 1, 1)), (2, (0, 1, 1)), (4, (0, 0, 1))])
def test_a_matcher_is_asked_the_same_at_its_own_resolution(shift, shares):
    result = evaluate_matcher(Adapter(shift), [identity_pair()])
    assert (result.pck1, result.pck3, result.pck5) == shares
    assert np.isnan(result.coarse)
    assert sum(row.count for row in result.reliability.bins) == 32 * 32


def test_certainty_that_is_high_where_the_warp_is_right_ranks_above_chance():
    pair = identity_pair()
    left_half_visible = np.arange(64)[None].repeat(64, 0) < 32
    seen = replace(pair, visible_AB=left_half_visible)
    assert evaluate_matcher(Adapter(0), [seen]).certainty_auc == 1


def test_validation_shares_no_generated_texture_with_training():
    ours = validation_textures(None, replace(RECIPE, procedural=3))
    for seed in range(3):  # seeds of training count from 0
        theirs = Textures.load(None, procedural=3, seed=seed)
        assert not any(np.array_equal(a[0], b[0]) for a in ours.pyramids for b in theirs.pyramids)


def test_the_hard_recipe_has_other_pairs_of_the_same_seeds():
    hard = replace(RECIPE, procedural=3, school="hard")
    ordinary, harder = (
        validation_pairs(validation_textures(None, recipe), 2, size=64, school=recipe.school)
        for recipe in (replace(hard, school="ordinary"), hard)
    )
    assert fingerprint(ordinary) != fingerprint(harder)


def test_fingerprint_tells_another_picture():
    pair = identity_pair(16)
    darker = replace(pair, image_B=pair.image_B // 2)
    assert fingerprint([pair]) == fingerprint([pair]) != fingerprint([darker])


def test_the_recipe_still_makes_the_pairs_its_published_figures_were_measured_on():
    """A change of the generator changes the validation set: then measure again and update these values."""
    pairs = validation_pairs(validation_textures(None, replace(RECIPE, procedural=3)), 4, size=64)
    assert [pair.visible_AB.mean() for pair in pairs] == pytest.approx([1, 1, 0.403, 0.499], abs=0.02)
    middles = [np.median(pair.warp_AB.reshape(-1, 2), axis=0) for pair in pairs]
    expected = [[36.45, 36.38], [37.57, 41.25], [44.97, 38.74], [36.44, 30.54]]
    np.testing.assert_allclose(middles, expected, atol=0.3)
