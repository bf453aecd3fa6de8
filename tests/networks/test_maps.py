from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from romacli.networks.parts.maps import sample


@pytest.mark.parametrize("spread", [0.9, 1.5, 40.0], ids=["inside", "across the edge", "mostly far outside"])
def test_both_ways_to_sample_agree_whatever_the_layout(spread: float) -> None:
    generator = torch.Generator().manual_seed(3)
    maps = torch.randn(2, 6, 9, 7, generator=generator)
    flow = (torch.rand(2, 2, 5, 4, generator=generator) * 2 - 1) * spread
    expected = F.grid_sample(maps, flow.permute(0, 2, 3, 1), align_corners=False)
    in_rows = maps.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        for each in (maps, in_rows, in_rows.bfloat16()):
            tolerance = 0.02 if each.dtype == torch.bfloat16 else 1e-5
            torch.testing.assert_close(sample(each, flow), expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(sample(in_rows.requires_grad_(), flow), expected)


def test_targets_that_are_not_finite_read_zero() -> None:
    maps = torch.ones(1, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    flow = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0]).expand(1, 2, 1, 4)
    with torch.no_grad():
        assert sample(maps, flow)[0, :, 0].tolist() == [[0, 0, 0, 1]] * 3
