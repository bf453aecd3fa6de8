"""The DINOv3 vision transformer as used by RoMa v2: inference only, two of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from romacli.networks.parts.rotary import rotation

from .dinov2 import PatchEmbedding, TransformerBlock

STORAGE_TOKENS = 4


@dataclass(frozen=True)
class DINOv3Config:
    """Sizes of the transformer; the defaults are those of ViT-L/16.

    depth: blocks in a checkpoint; read: those whose outputs are used, counted from 0.
    """

    dim: int = 1024
    depth: int = 24
    heads: int = 16
    patch: int = 16
    read: tuple[int, int] = (11, 17)


class DINOv3(nn.Module):
    """DINOv3 up to the last layer that is used.

    Source: Siméoni et al., DINOv3 (arXiv 2508.10104). Names as in the published checkpoints.
    """

    def __init__(self, config: DINOv3Config) -> None:
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.storage_tokens = nn.Parameter(torch.zeros(1, STORAGE_TOKENS, config.dim))
        self.patch_embed = PatchEmbedding(config.patch, config.dim)
        self.rope_embed = Periods(config.dim // config.heads // 4)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.dim, config.heads, norm_eps=1e-5, qkv_bias=True, layer_scale=True)
            for _ in range(config.read[-1] + 1)
        )
        self.norm = nn.LayerNorm(config.dim, eps=1e-5)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised patch tokens (B, N, dim) of both layers, for images (B, 3, H, W), ImageNet-normalised."""
        rows, cols = (side // self.config.patch for side in image.shape[-2:])
        x = self.patch_embed(image.to(self.cls_token.dtype))
        before = [token.expand(len(x), -1, -1) for token in (self.cls_token, self.storage_tokens)]
        skipped = 1 + STORAGE_TOKENS
        x = torch.cat([*before, x], dim=1)
        turned = rotation(self.rope_embed.periods, rows, cols, dtype=torch.float32, skipped=skipped)
        layers = []
        for index, block in enumerate(self.blocks):
            x = block(x, turned)
            if index in self.config.read:
                layers.append(self.norm(x)[:, skipped:])
        return layers[0], layers[1]

    def as_shipped(self, masks: Mapping[str, Tensor]) -> None:
        """Round all weights to bfloat16, as in the authors' model, and apply the masks.

        masks: by the name of the bias they multiply.
        """
        for name, parameter in self.named_parameters():
            value = parameter.bfloat16().float()
            parameter.data = value * masks[name].float() if name in masks else value
        self.rope_embed.periods = self.rope_embed.periods.bfloat16().float()

    def unread(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the other tensors in a checkpoint."""
        first = {name: tuple(value.shape) for name, value in self.blocks[0].state_dict().items()}
        shapes = {
            f"blocks.{index}.{name}": shape
            for index in range(len(self.blocks), self.config.depth)
            for name, shape in first.items()
        }
        masks = {f"blocks.{index}.attn.qkv.bias_mask": (3 * self.config.dim,) for index in range(self.config.depth)}
        return {**shapes, **masks, "mask_token": (1, self.config.dim)}


class Periods(nn.Module):
    """The periods of rotary positions, as stored in a checkpoint."""

    periods: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("periods", 100.0 ** (torch.arange(count) / count))
