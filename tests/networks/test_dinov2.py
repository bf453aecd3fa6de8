from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from romacli.networks.backbones.dinov2 import DINOv2, DINOv2Config, TransformerBlock

CONFIG = DINOv2Config(dim=8, depth=2, heads=2, position_side=5)


@pytest.fixture
def net() -> DINOv2:
    torch.manual_seed(0)
    net = DINOv2(CONFIG).requires_grad_(False)
    net.pos_embed.normal_()
    return net


def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75."""
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def resize_matrix(size: int, side: int) -> np.ndarray:
    """Weights (size, side) of a bicubic resize whose scale is (size + 0.1) / side, edges repeated."""
    weights = np.zeros((size, side))
    for i in range(size):
        source = (i + 0.5) * side / (size + 0.1) - 0.5
        for j in range(math.floor(source) - 1, math.floor(source) + 3):
            weights[i, min(max(j, 0), side - 1)] += cubic(source - j)
    return weights


def test_position_table_is_resized_with_a_scale_a_tenth_of_a_patch_larger(net: DINOv2) -> None:
    table = net.pos_embed[0, 1:].unflatten(0, (5, 5)).double().numpy()
    expected = np.einsum("ri,cj,ijd->rcd", resize_matrix(3, 5), resize_matrix(7, 5), table)
    found = net.position_embedding(3, 7)
    np.testing.assert_allclose(found[0, 1:].numpy(), expected.reshape(21, 8), atol=1e-5)
    assert torch.equal(found[:, 0], net.pos_embed[:, 0])


def test_position_table_is_used_as_it_is_at_its_own_size(net: DINOv2) -> None:
    assert net.position_embedding(5, 5) is net.pos_embed
    assert net.position_embedding(1, 25).shape == net.pos_embed.shape
    assert not torch.equal(net.position_embedding(1, 25), net.pos_embed)


def test_one_feature_comes_out_per_patch_normalised(net: DINOv2) -> None:
    features = net(torch.randn(2, 3, 28, 42))
    assert features.shape == (2, 8, 2, 3)
    torch.testing.assert_close(features.mean(1), torch.zeros(2, 2, 3), atol=1e-5, rtol=0)


def test_block_equals_attention_written_out() -> None:
    torch.manual_seed(1)
    block = TransformerBlock(8, 2, norm_eps=1e-6, qkv_bias=True, layer_scale=True).requires_grad_(False)
    block.ls1.gamma.uniform_(0.5, 2)
    x = torch.randn(1, 5, 8)
    normed = (x - x.mean(2, keepdim=True)) / (x.var(2, keepdim=True, unbiased=False) + 1e-6).sqrt()
    q, k, v = (normed @ block.attn.qkv.weight.T + block.attn.qkv.bias).split(8, dim=2)
    heads = [
        torch.softmax(q[..., h] @ k[..., h].transpose(1, 2) / 2, dim=2) @ v[..., h] for h in (slice(0, 4), slice(4, 8))
    ]
    attended = torch.cat(heads, dim=2) @ block.attn.proj.weight.T + block.attn.proj.bias
    after = x + block.ls1.gamma * attended
    expected = after + block.mlp(block.norm2(after))
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=0)
