from __future__ import annotations

import numpy as np
import torch

from romacli.synthetic.batch import stacked
from romacli.synthetic.pairs import SyntheticPair


def test_stacked_holds_a_then_b_with_warps_from_edge_to_edge():
    y, x = np.mgrid[:16, :16].astype(np.float32) + np.float32(0.5)
    warp, everywhere = np.stack((x, y), axis=-1), np.ones((16, 16), np.bool_)
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    pair = SyntheticPair(image, 255 - image, warp, warp + 1, everywhere, ~everywhere)
    images, warp, visible = stacked([pair, pair])
    assert images.shape == (4, 3, 16, 16)
    np.testing.assert_array_equal(images[1].permute(1, 2, 0), image)
    assert visible.flatten(1).float().mean(dim=1).tolist() == [1, 1, 0, 0]
    assert warp[0, 0, 0].tolist() == [-15 / 16, -15 / 16]
    torch.testing.assert_close(warp[2] - warp[0], torch.full((16, 16, 2), 1 / 8))
