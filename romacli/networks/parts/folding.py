"""Merge batch normalisations into the preceding convolutions, for inference."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


def fold_batchnorm(net: nn.Module) -> None:
    """Merge every batch normalisation into the convolution declared right before it, in float64, for inference.

    Modules must declare both in the order they apply them. The convolutions get new tensors, as the old ones may belong
    to a state dict. Results are equal up to rounding; float64 because a running variance may be tiny.
    """
    for module in list(net.modules()):
        children = list(module.named_children())
        for (_, conv), (name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                _fold(conv, norm)
                setattr(module, name, nn.Identity())


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
