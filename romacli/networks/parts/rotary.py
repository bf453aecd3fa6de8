"""Rotary position encoding of patches: rotations of queries and keys."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rotation:
    """Rotates channels k and k + D / 2 of each token by its position's angles; tokens before the patches are unchanged.

    Source: Su et al., RoFormer (arXiv 2104.09864), in the axial form of DINOv3 (arXiv 2508.10104).

    Attributes:
        sin, cos: (N, D), in the precision of the rotation.
        skipped: number of tokens before the N patches.
    """

    sin: Tensor
    cos: Tensor
    skipped: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate queries or keys (B, heads, skipped + N, D)."""
        patches = x[:, :, self.skipped :].to(self.sin.dtype)
        first, second = patches.chunk(2, dim=-1)
        turned = patches * self.cos + torch.cat([-second, first], dim=-1) * self.sin
        turned = turned.to(x.dtype)
        return torch.cat([x[:, :, : self.skipped], turned], dim=2) if self.skipped else turned


def rotation(periods: Tensor, rows: int, cols: int, *, dtype: torch.dtype, skipped: int = 0) -> Rotation:
    """The rotation for a row-major grid of patches, each side spanning [-1, 1] regardless of its length.

    Args:
        periods: (D / 4,) of the angles, shared by y, which comes first, and x.
        dtype: every step is rounded to it.
    """
    periods = periods.to(dtype)
    y, x = (2 * (torch.arange(0.5, side, dtype=dtype, device=periods.device) / side) - 1 for side in (rows, cols))
    places = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).view(-1, 2, 1)
    angles = (2 * math.pi * places / periods).flatten(1).repeat(1, 2)
    return Rotation(angles.sin(), angles.cos(), skipped)
