from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from romacli.networks.parts.attention import attention

SHAPES = [(1, 1, 1, 4), (2, 3, 7, 8), (1, 2, 1601, 16), (2, 4, 700, 8)]


def queries_keys_values(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """As a network splits them: views of one tensor (B, N, 3, heads, D)."""
    batch, heads, count, dim = shape
    parts = torch.randn(batch, count, 3, heads, dim, generator=torch.Generator().manual_seed(5)).to(dtype)
    q, k, v = parts.permute(2, 0, 3, 1, 4)
    return q, k, v


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q.double(), k.double(), v.double())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_it_is_softmax_attention(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    parts = queries_keys_values(shape, dtype)
    found = attention(*parts)
    assert found.dtype == dtype
    assert found.shape == shape
    torch.testing.assert_close(found.double(), exact(*parts), atol=tolerance, rtol=tolerance)


def test_what_all_keys_have_in_common_costs_no_precision() -> None:
    q, k, v = queries_keys_values((1, 4, 300, 64), torch.bfloat16)
    shifted = k + 32  # scores of hundreds, which rounding changes by whole units
    parts = 4 * q, shifted, v
    error = (attention(*parts).double() - exact(*parts)).abs().mean()
    naive = torch.softmax((4 * q * 64**-0.5) @ shifted.transpose(2, 3), dim=-1) @ v
    assert error < (naive.double() - exact(*parts)).abs().mean() / 3


def test_gradients_pass_in_bfloat16() -> None:
    q, k, v = (part.clone().requires_grad_() for part in queries_keys_values((1, 2, 9, 4), torch.bfloat16))
    attention(q, k, v).float().sum().backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in (q, k, v))


def test_results_do_not_depend_on_the_batch() -> None:
    q, k, v = queries_keys_values((3, 3, 700, 8), torch.bfloat16)
    together = attention(q, k, v)
    alone = [attention(*(part[i : i + 1] for part in (q, k, v))) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))
