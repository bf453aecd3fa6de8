"""The DINOv2 vision transformer, inference only, and its pre-norm block.

Parameter names follow the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from romacli.networks.parts.attention import attention
from romacli.networks.parts.pointwise import Linear
from romacli.networks.parts.rotary import Rotation


@dataclass(frozen=True)
class DINOv2Config:
    """Sizes of the transformer; the defaults are those of ViT-L/14."""

    dim: int = 1024
    depth: int = 24
    heads: int = 16
    patch: int = 14
    position_side: int = 37  # patches per side of the position table, trained at 518 px


class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, D)
        if rotation is not None:
            q, k = rotation(q), rotation(k)
        return self.proj(attention(q, k, v).transpose(1, 2).reshape(batch, tokens, dim))


class MLP(nn.Module):
    """Two linear layers with a hidden width of four times the input, and the exact GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, 4 * dim)
        self.fc2 = Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class TransformerBlock(nn.Module):
    """A pre-norm block: attention, then MLP, each added to its input."""

    def __init__(self, dim: int, heads: int, *, norm_eps: float, qkv_bias: bool, layer_scale: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads, qkv_bias=qkv_bias)
        self.ls1 = LayerScale(dim) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = MLP(dim)
        self.ls2 = LayerScale(dim) if layer_scale else nn.Identity()

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Transform tokens (B, N, dim); `rotation`, if given, is applied to queries and keys."""
        x = x + self.ls1(self.attn(self.norm1(x), rotation))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbedding(nn.Module):
    """One token per square patch of an image, or of a map with other channels."""

    def __init__(self, patch: int, dim: int, *, channels: int = 3) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).flatten(2).transpose(1, 2)  # (B, N, D)


class DINOv2(nn.Module):
    """DINOv2 without register tokens.

    Source: Oquab et al., DINOv2 (arXiv 2304.07193). Names as in the published checkpoints.
    """

    def __init__(self, config: DINOv2Config) -> None:
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.position_side**2, config.dim))
        self.mask_token = nn.Parameter(torch.zeros(1, config.dim))  # for pretraining; loaded but unused
        self.patch_embed = PatchEmbedding(config.patch, config.dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.dim, config.heads, norm_eps=1e-6, qkv_bias=True, layer_scale=True)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)

    def forward(self, image: Tensor) -> Tensor:
        """Compute one feature per patch.

        Args:
            image: (B, 3, H, W) ImageNet-normalised, H and W multiples of the patch size.

        Returns:
            (B, dim, H / patch, W / patch) in the dtype of the weights.
        """
        rows, cols = (side // self.config.patch for side in image.shape[-2:])
        x = self.patch_embed(image.to(self.cls_token.dtype))
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)  # (B, 1 + N, D)
        x = x + self.position_embedding(rows, cols)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:].transpose(1, 2).unflatten(2, (rows, cols))  # (B, D, rows, cols)

    def position_embedding(self, rows: int, cols: int) -> Tensor:
        """The position table resized to a grid of patches, the class token's entry first.

        The bicubic resize takes the scale (rows + 0.1) / side instead of the output size, as in DINOv2's own
        code: sampling positions depend on the scale, so the 0.1 matters for equal results.

        Returns:
            (1, 1 + rows * cols, dim), row-major, in the dtype of the weights.
        """
        side = self.config.position_side
        if rows == cols == side:
            return self.pos_embed
        table = self.pos_embed[:, 1:].float().transpose(1, 2).unflatten(2, (side, side))
        scale = ((rows + 0.1) / side, (cols + 0.1) / side)
        table = F.interpolate(table, scale_factor=scale, mode="bicubic")  # (1, D, rows, cols)
        patches = table.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return torch.cat([self.pos_embed[:, :1], patches], dim=1)
