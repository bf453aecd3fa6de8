"""The same linear map at every token or pixel, by the faster of the libraries that a CPU has for it.

PyTorch hands products of matrices to MKL, which on an AMD EPYC was half as fast as oneDNN, and convolutions to oneDNN.
A linear layer is a convolution of 1x1, so that public functions alone choose.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# On a single thread PyTorch asks oneDNN for convolutions of 1x1 only from so many images in a batch.
_IMAGES_ON_ONE_THREAD = 16


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b over the last dimension, in float32 on a CPU with both libraries by oneDNN.

    Args:
        x: (..., in_features), contiguous where no copy is wanted.
        weight: (out_features, in_features).
        bias: (out_features,), or None.

    Returns:
        (..., out_features), contiguous.
    """
    if not _is_faster_as_convolution(x):
        return F.linear(x, weight, bias)
    images = 1 if torch.get_num_threads() > 1 else _IMAGES_ON_ONE_THREAD
    tokens = x.reshape(-1, x.shape[-1])
    padding = -len(tokens) % images
    padded = F.pad(tokens, (0, 0, 0, padding)) if padding else tokens
    maps = padded.view(images, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)  # (images, in_features, 1, length)
    mapped = F.conv2d(maps, weight[:, :, None, None], bias).permute(0, 2, 3, 1)  # (images, 1, length, out_features)
    return mapped.reshape(len(padded), -1)[: len(tokens)].view(*x.shape[:-1], -1)


def _is_faster_as_convolution(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
    )


class Linear(nn.Linear):
    """A linear layer of tokens (..., in_features)."""

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution of maps (B, C, H, W), best in channels-last memory."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.as_product(x) if _is_faster_as_convolution(x) else super().forward(x)

    def as_product(self, x: Tensor) -> Tensor:
        """The same by `pointwise`: where it is no convolution, a product of matrices."""
        return pointwise(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)
