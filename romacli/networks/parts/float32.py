"""Layers that stay float32 in a network of lower precision, also under autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from .pointwise import Linear, PointwiseConv2d


def without_autocast(x: Tensor) -> torch.autocast:
    """A context in which products on x's device keep the precision of their operands."""
    return torch.autocast(x.device.type, enabled=False)


class StaysFloat32(nn.Module):
    """A module that moves between devices but keeps its precision when the surrounding network is converted."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)


class Float32Conv2d(StaysFloat32, PointwiseConv2d):
    """A 1x1 convolution that stays float32; a matrix product on GPUs, which round convolution inputs to TF32."""

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            return self.as_product(x)


class Float32Linear(StaysFloat32, Linear):
    """A linear layer that stays float32."""

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            return super().forward(x)


class Float32Sequential(StaysFloat32, nn.Sequential):
    """Layers that stay float32."""
