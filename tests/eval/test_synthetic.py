from __future__ import annotations

import numpy as np
import pytest
import torch

from romacli.eval.synthetic import area_under_roc, evaluate, validation_pairs
from romacli.models.mini import Mini, MiniConfig
from romacli.synthetic import SyntheticPair, Textures


def identity_pair(side=64):
    y, x = np.mgrid[:side, :side].astype(np.float32) + np.float32(0.5)
    warp, everywhere = np.stack((x, y), axis=-1), np.ones((side, side), np.bool_)
    image = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return SyntheticPair(image, image, warp, warp, everywhere, everywhere)


class Oracle(Mini):
    """Answers every pair with the identity, shifted by `shift` px of 64 and surer on the left."""

    def __init__(self, shift: float) -> None:
        super().__init__(MiniConfig(trunk_channels=(8, 8, 8, 8), decoder_width=12, fourier_channels=8))
        self.shift = shift

    def trace(self, source, target, *, symmetric=False):
        trace = super().trace(source, target, symmetric=symmetric)
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
    assert result.coarse == (1 if shift <= 4 else 0)


def test_same_seed_gives_the_same_pairs_and_another_seed_others():
    textures = Textures.load(None, procedural=2, seed=0)
    first, second, other = (validation_pairs(textures, 2, size=64, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first[1].image_B, second[1].image_B)
    assert not np.array_equal(first[1].image_B, other[1].image_B)


def test_area_under_roc_worked_by_hand():
    score, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert area_under_roc(score, positive) == pytest.approx(0.75)
    assert np.isnan(area_under_roc(score, np.ones(4, bool)))
