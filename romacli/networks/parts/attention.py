"""Attention of tokens to each other, by the fastest way that a device has for its precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Scores of some heads at a time, as many as a CPU's cache holds.
_SCORES_AT_ONCE = 1 << 20


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v of every head.

    PyTorch's own kernel multiplies bfloat16 on a CPU no faster than float32. Products of whole matrices do, so
    there the scores of some heads at a time are written out. They are rounded to bfloat16, hence taken of keys
    without their mean, which changes all scores of a query alike and the softmax not at all (SageAttention,
    arXiv 2410.02367).

    Args:
        q, k, v: (B, heads, N, D).

    Returns:
        (B, heads, N, D).
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or q.requires_grad:  # gradients would hold all scores
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
