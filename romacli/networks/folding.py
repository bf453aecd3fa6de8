"""Batch normalisations merged into the convolutions before them, for inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def fold_batchnorm(net: nn.Module) -> None:
    """Merge every batch normalisation into the convolution right before it, in float64, for inference.

    The convolutions get new tensors: those they had may belong to a state dict. Equal results up to rounding;
    a running variance may be tiny, hence the precision.
    """
    for layers in (module for module in net.modules() if isinstance(module, nn.Sequential)):
        for i in range(1, len(layers)):
            conv, norm = layers[i - 1], layers[i]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                _fold(conv, norm)
                layers[i] = nn.Identity()


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = _or(norm.weight, torch.ones_like(mean)) / (variance + norm.eps).sqrt()
    none = torch.zeros_like(mean)
    folded_weight = conv.weight.double() * scale[:, None, None, None]
    folded_bias = (_or(conv.bias, none) - mean) * scale + _or(norm.bias, none)
    conv.weight = nn.Parameter(folded_weight.to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(folded_bias.to(conv.weight.dtype), requires_grad=False)


def _or(tensor: Tensor | None, absent: Tensor) -> Tensor:
    return absent if tensor is None else tensor.double()
