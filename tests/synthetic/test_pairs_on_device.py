from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from romacli.geometry.coordinates import to_colmap_pixels
from romacli.synthetic.pairs_on_device import render_pairs, sample_pairs
from romacli.synthetic.rasterise import Atlas
from romacli.synthetic.textures import Textures

SIZE, COUNT = 96, 12


@pytest.fixture(scope="module")
def textures() -> Textures:
    return Textures.load(None, procedural=5, seed=0, repeated=4)


@pytest.fixture(scope="module")
def atlas(textures) -> Atlas:
    return Atlas.of(textures, torch.device("cpu"))


def pairs(textures, atlas, seed, *, shares=None, **kwargs):
    table = sample_pairs(textures, atlas.index, np.random.default_rng(seed), SIZE, COUNT, **(shares or {}))
    return render_pairs(table, atlas, **kwargs)


def test_batch_has_the_promised_shapes_and_repeats_with_its_seed(textures, atlas):
    first, second, other = (pairs(textures, atlas, seed) for seed in (1, 1, 2))
    images, warp, visible = first
    assert (images.shape, images.dtype) == ((2 * COUNT, 3, SIZE, SIZE), torch.uint8)
    assert (warp.shape, warp.dtype) == ((2 * COUNT, SIZE, SIZE, 2), torch.float32)
    assert (visible.shape, visible.dtype) == ((2 * COUNT, SIZE, SIZE), torch.bool)
    assert warp.isfinite().all()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(images, other[0])


def test_hard_pairs_are_rendered_and_some_are_dark(textures, atlas):
    table = sample_pairs(textures, atlas.index, np.random.default_rng(4), SIZE, COUNT, hard=1.0)
    dark = table.at_night.view(2, -1)
    assert dark.any()
    assert not dark.all(dim=0).any()
    night = render_pairs(table, atlas)
    day = render_pairs(replace(table, at_night=torch.zeros_like(table.at_night)), atlas)
    assert night[0].float().mean() < day[0].float().mean()
    torch.testing.assert_close(night[1], day[1])


def test_changed_pairs_are_rendered_and_some_are_graded(textures, atlas):
    table = sample_pairs(textures, atlas.index, np.random.default_rng(4), SIZE, COUNT, changed=1.0)
    assert table.graded.any()
    assert not table.graded.all()
    graded = render_pairs(table, atlas)
    plain = render_pairs(replace(table, graded=torch.zeros_like(table.graded)), atlas)
    assert not torch.equal(graded[0], plain[0])
    torch.testing.assert_close(graded[1], plain[1])


@pytest.mark.parametrize("shares", [{}, {"hard": 1.0}, {"changed": 1.0}], ids=["ordinary", "hard", "changed"])
def test_visible_pixels_look_alike_before_the_light_changes(textures, atlas, shares):
    images, warp, visible = pairs(textures, atlas, 3, lit=False, shares=shares)
    warp = to_colmap_pixels(warp, (SIZE, SIZE)).numpy() - np.float32(0.5)
    medians = []
    for view in range(2 * COUNT):
        if visible[view].any():
            other = images[(view + COUNT) % (2 * COUNT)].permute(1, 2, 0).numpy()
            warped = cv2.remap(other, warp[view, ..., 0], warp[view, ..., 1], cv2.INTER_LINEAR)
            difference = np.abs(warped.astype(int) - images[view].permute(1, 2, 0).numpy())
            medians.append(np.median(difference[visible[view].numpy()]))
    assert len(medians) > COUNT
    assert np.median(medians) <= 4
    assert np.percentile(medians, 90) <= 14


def test_pairs_have_enough_in_common_or_nothing(textures, atlas):
    _, _, visible = pairs(textures, atlas, 4)
    share = visible.float().mean(dim=(1, 2)).view(2, COUNT).amin(dim=0)
    assert ((share > 0.12) | (share == 0)).all()
    assert (share > 0).sum() >= COUNT - 4
