from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.commands import REPOSITORY

from romacli.matchers.matcher import pair_seed
from romacli.matchers.sampling import SampleOptions, grid_density, kernel_density, pixel_centres, sample
from romacli.types import DenseMatch


def shifted(certainty: torch.Tensor) -> DenseMatch:
    """B shows the same as A, shifted left by a quarter of the width."""
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


def test_nothing_below_the_matchers_least_certainty_is_drawn() -> None:
    match = shifted(torch.rand(30, 40, generator=torch.Generator().manual_seed(1)))
    kept = sample(replace(match, min_certainty=0.8), 0, SampleOptions(num_matches=2000))
    assert 0.15 < len(kept) / 2400 < 0.25
    assert kept.scores.min() > 0.8


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


def manifold(count: int) -> torch.Tensor:
    """Points of a smooth warp, denser on the left, and a twentieth of them anywhere: (count, 4)."""
    generator = torch.Generator().manual_seed(3)
    here = torch.rand(count, 2, generator=generator)
    here[:, 0] = here[:, 0] ** 2
    here = 2 * here - 1
    there = 0.8 * here + 0.1 * torch.sin(3 * here.flip(1))
    wrong = torch.rand(count, generator=generator) < 0.05
    there[wrong] = 2 * torch.rand(int(wrong.sum()), 2, generator=generator) - 1
    return torch.cat((here, there), 1)


def test_grid_density_is_close_to_the_sum() -> None:
    points = manifold(6_000)
    exact, grid = kernel_density(points, 0.1), grid_density(points, 0.1)
    error = (grid / exact - 1).abs()
    assert error.median() < 0.02
    assert ((exact < 10) != (grid < 10)).float().mean() < 1e-3


def test_grid_density_of_a_point_outside_or_on_the_edge_is_finite() -> None:
    points = torch.tensor([[1.0, 1.0, -1.0, 1.0], [3.0, 0.0, 0.0, 0.0]])
    assert (grid_density(points, 0.1) > 0.8).all()


def test_cells_wider_than_the_kernel_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cells of 0.5 are too wide for a bandwidth of 0.1"):
        grid_density(torch.zeros(1, 4), 0.1, cell=0.5)


def test_exact_and_grid_samples_are_spread_alike() -> None:
    certainty = torch.full((120, 160), 0.04)
    certainty[:40, :40] = 0.9
    in_corner = []
    for exact in (False, True):
        found = sample(shifted(certainty), 0, SampleOptions(num_matches=1000, exact=exact))
        in_corner.append(((found.keypoints0[:, 0] < 20) & (found.keypoints0[:, 1] < 20)).mean())
    assert abs(in_corner[0] - in_corner[1]) < 0.02


# A separate process, whose peak is not that of other tests. The warp of a pair at 864 x 864 already exists there.
MEMORY = """
import resource
import torch
from romacli.matchers.sampling import SampleOptions, pixel_centres, sample
from romacli.types import DenseMatch

torch.set_num_threads(1)
def match(side):
    grid = pixel_centres(side, side)
    certainty = torch.rand(side, side, generator=torch.Generator().manual_seed(0))
    return DenseMatch(grid, certainty, grid, certainty, (800, 800), (800, 800))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

large = match(864)
sample(match(64), 0, SampleOptions(num_matches=100, exact={exact}))
before = peak()
assert len(sample(large, 0, SampleOptions(exact={exact}))) == 10_000
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory has other units elsewhere")
@pytest.mark.parametrize("exact", [False, True])
def test_ten_thousand_matches_take_less_than_200_megabytes(exact: bool) -> None:
    program = MEMORY.format(exact=exact)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) * 1024 < 200e6
