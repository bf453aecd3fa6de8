from __future__ import annotations

import numpy as np
import pytest
import torch

from romacli.matching.matcher import pair_seed
from romacli.matching.sampling import SampleOptions, kernel_density, pixel_centres, sample
from romacli.types import DenseMatch


def shifted(certainty: torch.Tensor) -> DenseMatch:
    """B shows what A shows, a quarter of the width further left."""
    height, width = certainty.shape
    grid = pixel_centres(height, width)
    shift = torch.tensor([0.5, 0.0])
    return DenseMatch(grid - shift, certainty, grid + shift, certainty, (80, 60), (80, 60))


def test_samples_lie_on_the_warp_in_colmap_pixels() -> None:
    found = sample(shifted(torch.full((30, 40), 0.9)), 0, SampleOptions(num_matches=200))
    assert len(found) == 200
    np.testing.assert_allclose(found.keypoints0 - found.keypoints1, np.tile([20.0, 0.0], (200, 1)), atol=1e-4)
    assert np.allclose(found.scores, 0.9)


def test_only_positive_certainties_are_drawn() -> None:
    certainty = torch.zeros(30, 40)
    certainty[4, 7] = 0.01
    found = sample(shifted(certainty), 0, SampleOptions(num_matches=50))
    assert len(found) == 2
    np.testing.assert_allclose(found.keypoints0[found.keypoints0[:, 0] < 20], [[15.0, 9.0]], atol=1e-4)


def test_no_certainty_gives_no_samples() -> None:
    assert len(sample(shifted(torch.zeros(30, 40)), 0)) == 0


def test_seed_decides_and_order_of_names_does_not() -> None:
    match = shifted(torch.rand(30, 40, generator=torch.Generator().manual_seed(1)))
    options = SampleOptions(num_matches=100)
    seeds = [pair_seed("a", "b", seed=3), pair_seed("b", "a", seed=3), pair_seed("a", "b", seed=4)]
    first, again, other = (sample(match, seed, options) for seed in seeds)
    assert np.array_equal(first.keypoints0, again.keypoints0)
    assert not np.array_equal(first.keypoints0, other.keypoints0)


def test_dense_places_are_thinned() -> None:
    certainty = torch.full((120, 160), 0.04)
    certainty[:40, :40] = 0.9
    found, plain = (
        sample(shifted(certainty), 0, SampleOptions(num_matches=1000, oversampling=factor)) for factor in (4, 1)
    )
    in_corner = [((one.keypoints0[:, 0] < 20) & (one.keypoints0[:, 1] < 20)).mean() for one in (found, plain)]
    assert len(found) == 1000
    assert in_corner[0] < 0.6 * in_corner[1]


@pytest.mark.parametrize("count", [1, 1500])
def test_kernel_density_equals_the_plain_sum(count: int) -> None:
    points = torch.rand(count, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    distance = (points[:, None] - points[None]).square().sum(-1)
    expected = torch.exp(-distance / (2 * 0.1**2)).sum(1)
    torch.testing.assert_close(kernel_density(points, 0.1), expected)
