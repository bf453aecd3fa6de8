"""Residual networks: ResNet-50, and the block of DKM's decoder."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pointwise import PointwiseConv2d


class ResNet50(nn.Module):
    """ResNet-50 without its classifier, truncated at a stride, with torchvision's parameter names.

    Source: He et al., Deep Residual Learning (arXiv 1512.03385), with the stride in the 3x3 convolution.
    """

    def __init__(self, deepest: int = 32) -> None:
        super().__init__()
        self.deepest = deepest
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = stage(64, 64, blocks=3, stride=1)
        self.layer2 = stage(256, 128, blocks=4, stride=2)
        if deepest >= 16:
            self.layer3 = stage(512, 256, blocks=6, stride=2)
        if deepest >= 32:
            self.layer4 = stage(1024, 512, blocks=3, stride=2)

    def forward(self, image: Tensor, *, down_to: int = 32) -> Iterator[tuple[int, Tensor]]:
        """Yield (stride, features) from stride 1, the image itself, to stride `down_to`."""
        yield 1, image
        x = F.relu(self.bn1(self.conv1(image.to(memory_format=torch.channels_last))), inplace=True)
        yield 2, x
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for number, stride in enumerate((4, 8, 16, 32), start=1):
            if stride <= min(down_to, self.deepest):
                x = getattr(self, f"layer{number}")(x)
                yield stride, x


class Bottleneck(nn.Module):
    """Three convolutions with a narrow middle, added to the input or a linear projection of it."""

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = PointwiseConv2d(in_channels, width, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = PointwiseConv2d(width, 4 * width, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        if stride != 1 or in_channels != 4 * width:
            shortcut = nn.Conv2d(in_channels, 4 * width, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))
        else:
            self.downsample = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


def stage(in_channels: int, width: int, *, blocks: int, stride: int) -> nn.Sequential:
    """Bottlenecks at one stride; the first may halve the resolution."""
    first = Bottleneck(in_channels, width, stride=stride)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, stride=1) for _ in range(blocks - 1)))


class ResidualBlock(nn.Module):
    """A linear projection with a residual of two convolutions, as in DKM's decoder."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = PointwiseConv2d(in_channels, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return F.relu(x + self.conv3(F.relu(self.bn(self.conv2(x)))))
