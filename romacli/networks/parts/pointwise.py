"""A linear map applied to every token or pixel, by the faster of a CPU's two libraries.

PyTorch uses MKL for matrix products, which was half as fast as oneDNN on an AMD EPYC, and oneDNN for convolutions.
Writing a linear layer as a 1x1 convolution therefore selects oneDNN through public functions alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# With a single thread PyTorch uses oneDNN for 1x1 convolutions only from this batch size.
_IMAGES_ON_ONE_THREAD = 16


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b over the last dimension; by oneDNN in float32 on a CPU where both libraries are available.

    Args:
        x: (..., in_features), contiguous to avoid a copy.
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
    """A linear layer for tokens (..., in_features)."""

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution of maps (B, C, H, W), fastest in channels-last memory."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.as_product(x) if _is_faster_as_convolution(x) else super().forward(x)

    def as_product(self, x: Tensor) -> Tensor:
        """The same through `pointwise`, which may compute it as a matrix product."""
        return pointwise(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)
