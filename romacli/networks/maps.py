"""Feature maps and the flows that read them, as all networks of this room count coordinates.

Normalised x, y lie in [-1, 1] over the image area (align_corners=False).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_grid(maps: Tensor) -> Tensor:
    """Normalised x, y of the pixel centres of maps (B, C, h, w), as (1, 2, h, w) float32."""
    height, width = maps.shape[-2:]
    y = torch.linspace(-1 + 1 / height, 1 - 1 / height, height, device=maps.device)
    x = torch.linspace(-1 + 1 / width, 1 - 1 / width, width, device=maps.device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]


def sample(maps: Tensor, flow: Tensor) -> Tensor:
    """Maps (B, C, H, W) at normalised targets (B, 2, h, w), bilinear, zero outside; float32 coordinates."""
    return F.grid_sample(maps.float(), flow.permute(0, 2, 3, 1), align_corners=False)


def tokens(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) as row-major tokens (B, h * w, C)."""
    return maps.flatten(2).transpose(1, 2)


def resized(maps: Tensor, shape: Sequence[int]) -> Tensor:
    """Bilinear, also where it shrinks: the published weights were trained without antialiasing."""
    return maps if tuple(maps.shape[-2:]) == tuple(shape) else F.interpolate(maps, size=tuple(shape), mode="bilinear")
