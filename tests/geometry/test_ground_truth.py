from __future__ import annotations

import pytest
import torch

from romacli.geometry.ground_truth import ground_truth_at
from romacli.networks.parts.maps import cell_centres


def test_ground_truth_on_the_grid_itself_is_unchanged():
    warp, visible = torch.rand(1, 8, 8, 2) * 0.1, torch.ones(1, 8, 8, dtype=torch.bool)
    found, seen = ground_truth_at(warp, visible, (8, 8))
    torch.testing.assert_close(found, warp)
    assert seen.all()


@pytest.mark.parametrize("cells", [2, 3, 4, 5, 6, 8, 12])
def test_identity_warp_stays_the_identity_on_coarser_grids(cells):
    warp = cell_centres(12, 12)[None]
    found, seen = ground_truth_at(warp, torch.ones(1, 12, 12, dtype=torch.bool), (cells, cells))
    torch.testing.assert_close(found[0], cell_centres(cells, cells))
    assert seen.all()


def test_ground_truth_needs_all_four_pixels_visible_and_alike():
    warp = cell_centres(64, 64)[None].clone()
    visible = torch.ones(1, 64, 64, dtype=torch.bool)
    visible[0, 8, 8] = False
    warp[0, 24:, 40:] += 0.8  # a depth edge
    _, seen = ground_truth_at(warp, visible, (4, 4))
    assert seen[0].int().tolist() == [[0, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 1], [1, 1, 0, 1]]
