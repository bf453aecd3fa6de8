"""Attention between tokens, by the fastest implementation for the device and precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The scores of a few heads at a time, so that they fit a CPU's cache.
_SCORES_AT_ONCE = 1 << 20


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v for every head.

    PyTorch's own CPU kernel is no faster in bfloat16 than in float32, but plain matrix products are; there the scores
    are computed explicitly, a few heads at a time. Because they are rounded to bfloat16, the mean is first subtracted
    from the keys: this shifts all scores of a query equally and leaves the softmax unchanged (SageAttention,
    arXiv 2410.02367).

    Args:
        q, k, v: (B, heads, N, D).

    Returns:
        (B, heads, N, D).
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or q.requires_grad:  # autograd would keep all scores
        return F.scaled_dot_product_attention(q, k, v)
    queries = (q * q.shape[-1] ** -0.5).flatten(0, 1)
    keys = (k - k.mean(dim=2, keepdim=True)).flatten(0, 1).transpose(1, 2)
    values = v.flatten(0, 1)
    heads = max(1, _SCORES_AT_ONCE // (q.shape[2] * k.shape[2]))
    parts = [parted.split(heads) for parted in (queries, keys, values)]
    attended = [
        torch.bmm(torch.bmm(some_q, some_k).softmax(dim=-1), some_v)
        for some_q, some_k, some_v in zip(*parts, strict=True)
    ]
    return torch.cat(attended).view(q.shape)
