from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from romacli.networks.parts import local_correlation as room
from romacli.networks.parts.local_correlation import local_correlation


def sampled_correlation(x: Tensor, y: Tensor, flow: Tensor, radius: int) -> Tensor:
    """By definition: y is sampled separately for every position of the window."""
    height, width = y.shape[-2:]
    places = range(-radius, radius + 1)
    window = [
        (x * F.grid_sample(y, (flow + shift).permute(0, 2, 3, 1), align_corners=False)).sum(1)
        for dy in places
        for dx in places
        for shift in [flow.new_tensor([2 * dx / width, 2 * dy / height]).view(1, 2, 1, 1)]
    ]
    return torch.stack(window, dim=1) / x.shape[1] ** 0.5


def problem(target_shape: tuple[int, int], spread: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(2, 6, *shape, generator=generator, dtype=torch.float64) for shape in ((5, 4), target_shape))
    flow = (torch.rand(2, 2, 5, 4, generator=generator, dtype=torch.float64) * 2 - 1) * spread
    return x, y, flow


@pytest.mark.parametrize("radius", [0, 1, 3])
@pytest.mark.parametrize("spread", [0.9, 1.5, 40.0], ids=["inside", "across the edge", "mostly far outside"])
@pytest.mark.parametrize("shape", [(4, 7), (30, 41)], ids=["one product", "gathered rows"])
def test_blending_whole_pixels_equals_sampling_every_place(radius: int, spread: float, shape: tuple[int, int]) -> None:
    x, y, flow = problem(shape, spread)
    found = local_correlation(x, y, flow, radius)
    torch.testing.assert_close(found, sampled_correlation(x, y, flow, radius), atol=1e-9, rtol=0)


@pytest.mark.parametrize("shape", [(4, 7), (30, 41)], ids=["one product", "gathered rows"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_single_and_half_precision_come_near(shape: tuple[int, int], dtype: torch.dtype, tolerance: float) -> None:
    x, y, flow = problem(shape, 1.1)
    found = local_correlation(x.to(dtype), y.to(dtype), flow.float(), 2)
    assert found.dtype == dtype
    exact = local_correlation(x.to(dtype).double(), y.to(dtype).double(), flow, 2)
    torch.testing.assert_close(found.double(), exact, atol=tolerance, rtol=0)


def test_a_cpu_and_other_devices_find_the_same_by_their_own_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(count, 8, generator=generator, dtype=torch.float64) for count in (50, 90))
    places, window = torch.randint(0, 70, (50,), generator=generator), [0, 1, 9, 10]
    by_strip = room._dots_by_strip(x, y, places, [0, 9])[:, 0]
    torch.testing.assert_close(room._dots_by_place(x, y, places, window), by_strip)
    monkeypatch.setattr(room, "CHUNK_VALUES_ELSEWHERE", 1)
    torch.testing.assert_close(room._dots_by_place(x, y, places, window), by_strip)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_size_of_the_steps_does_not_change_the_result(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, flow = (tensor.to(dtype) for tensor in problem((30, 41), 1.0))
    whole = local_correlation(x, y, flow, 2)
    monkeypatch.setattr(room, "CHUNK_BYTES", 1)
    assert torch.equal(local_correlation(x, y, flow, 2), whole)


def test_targets_that_are_not_finite_are_no_error() -> None:
    x, y, flow = problem((30, 41), 1.0)
    flow[0, 0, 0, 0], flow[0, 1, 1, 1] = float("inf"), float("nan")
    found = local_correlation(x, y, flow, 1)
    assert (found[0, :, 0, 0] == 0).all()
    assert found[1].isfinite().all()
