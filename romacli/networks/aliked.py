"""ALIKED, read top-down: keypoints and descriptors from a small network with deformable convolutions.

Source: Zhao et al., ALIKED: A Lighter Keypoint and Descriptor Extraction Network via Deformable Transformation
(arXiv 2304.03608). The deformable convolutions use plain sampling and need no compiled operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .parts.folding import fold_batchnorm
from .weights import load_strictly

MULTIPLE = 32
LEAST_SCORE = 0.2
NMS_RADIUS = 2
TEMPERATURE = 0.1  # of the soft-argmax in the window around a keypoint


class ALIKED(nn.Module):
    """Keypoint scores at every pixel and descriptors at selected points; the published size "n16"."""

    def __init__(self, channels: Sequence[int] = (16, 32, 64, 128), dim: int = 128, points: int = 16) -> None:
        super().__init__()
        c1, c2, c3, c4 = channels
        self.block1 = ConvBlock(3, c1)
        self.block2 = ResBlock(c1, c2)
        self.block3 = ResBlock(c2, c3, deformable=True)
        self.block4 = ResBlock(c3, c4, deformable=True)
        self.conv1, self.conv2, self.conv3, self.conv4 = (nn.Conv2d(c, dim // 4, 1, bias=False) for c in channels)
        score = [nn.Conv2d(dim, 8, 1, bias=False)]
        score += [nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in ((8, 4), (4, 4), (4, 1))]
        self.score_head = nn.Sequential(*[part for conv in score for part in (conv, nn.SELU())][:-1])
        self.desc_head = Descriptors(dim, points)

    @classmethod
    def from_checkpoint(cls, state_dict: Mapping[str, Tensor]) -> ALIKED:
        """Build a network ready for inference, with the weights of a published file.

        Raises:
            WeightsError: a name is missing, unexpected or of another shape.
        """
        with torch.device("meta"):
            net = cls()
        load_strictly(net, state_dict, str, what="ALIKED")
        fold_batchnorm(net)
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features (B, dim, H, W) and scores (B, 1, H, W) of (B, 3, H, W) in [0, 1], sides multiples of 32."""
        x1 = self.block1(image)
        x2 = self.block2(F.avg_pool2d(x1, 2))
        x3 = self.block3(F.avg_pool2d(x2, 4))
        x4 = self.block4(F.avg_pool2d(x3, 4))
        convs = (self.conv1, self.conv2, self.conv3, self.conv4)
        levels = [F.selu(conv(x)) for conv, x in zip(convs, (x1, x2, x3, x4), strict=True)]
        whole = torch.cat([raised(level, image.shape[-2:]) for level in levels], dim=1)
        return F.normalize(whole, dim=1), self.score_head(whole).sigmoid()

    def detect(self, image: Tensor, count: int, places: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Keypoints of one image, highest score first, or descriptors at given points.

        Args:
            image: (1, 3, H, W) in [0, 1], sides multiples of 32.
            count: maximum number of keypoints.
            places: (N, 2) x, y in px, with (0, 0) the centre of the top-left pixel; None to detect keypoints.

        Returns:
            Points (N, 2), scores (N,) and unit descriptors (N, dim).
        """
        features, scores = self.maps(image)
        if places is None:
            places = keypoints(scores[0, 0], count)
        return places, read(scores, places)[:, 0], self.desc_head(features, places)


def raised(maps: Tensor, shape: Sequence[int]) -> Tensor:
    """Maps upsampled to a finer grid with aligned corners."""
    return maps if maps.shape[-2:] == shape else F.interpolate(maps, shape, mode="bilinear", align_corners=True)


def read(maps: Tensor, places: Tensor) -> Tensor:
    """Values (N, C) of maps (1, C, h, w) at points (N, 2) x, y in cells: bilinear, zero outside."""
    height, width = maps.shape[-2:]
    grid = 2 * places / places.new_tensor([width - 1, height - 1]) - 1
    return F.grid_sample(maps, grid[None, None], align_corners=True)[0, :, 0].T


def keypoints(scores: Tensor, count: int) -> Tensor:
    """Sub-pixel peaks (N, 2) x, y of scores (H, W), highest first.

    Each is the mean position in a window, weighted by the softmax of the scores.
    """
    peaks = peaks_of(scores)
    edge = NMS_RADIUS
    peaks[:edge] = peaks[-edge:] = False
    peaks[:, :edge] = peaks[:, -edge:] = False
    found = peaks & (scores > LEAST_SCORE)
    if not found.any():
        found = peaks & (scores > scores.mean())
    rows, columns = found.nonzero(as_tuple=True)
    best = scores[rows, columns].argsort(descending=True, stable=True)[:count]
    rows, columns = rows[best], columns[best]
    step = torch.arange(-NMS_RADIUS, NMS_RADIUS + 1, device=scores.device)
    window = scores[rows[:, None, None] + step[:, None], columns[:, None, None] + step]  # (N, rows, columns)
    weights = (window.flatten(1) / TEMPERATURE).softmax(dim=1).view_as(window)
    x = columns + (weights.sum(dim=1) * step).sum(dim=1)
    y = rows + (weights.sum(dim=2) * step).sum(dim=1)
    return torch.stack([x, y], dim=1)


def peaks_of(scores: Tensor) -> Tensor:
    """Mask of local maxima of scores (H, W); then, twice, maxima among the pixels that are not near a peak."""

    def highest(values: Tensor) -> Tensor:
        return F.max_pool2d(values[None], 2 * NMS_RADIUS + 1, 1, NMS_RADIUS)[0]

    peaks = scores == highest(scores)
    for _ in range(2):
        near = highest(peaks.to(scores)) > 0
        others = scores.masked_fill(near, 0)
        peaks = peaks | ((others == highest(others)) & ~near)
    return peaks


class Descriptors(nn.Module):
    """Descriptors of points from features sampled around each, at offsets predicted from the features there."""

    def __init__(self, dim: int, points: int) -> None:
        super().__init__()
        self.offset_conv = nn.Sequential(nn.Conv2d(dim, 2 * points, 3), nn.SELU(), nn.Conv2d(2 * points, 2 * points, 1))
        self.sf_conv = nn.Conv2d(dim, dim, 1, bias=False)
        self.agg_weights = nn.Parameter(torch.zeros(points, dim, dim))

    def forward(self, features: Tensor, places: Tensor) -> Tensor:
        """Unit descriptors (N, dim) at points (N, 2) x, y of a map (1, dim, H, W)."""
        height, width = features.shape[-2:]
        most = max(height, width) / 4
        # The window around a point; it ends one cell short of the right and lower edges, as published.
        limit = places.new_tensor([width - 4, height - 4])
        corner = (places.long() - 1).clamp(min=0).minimum(limit.long())
        step = torch.arange(3, device=places.device)
        x, y = corner[:, 0, None, None] + step, corner[:, 1, None, None] + step[:, None]
        patches = features[0].permute(1, 2, 0)[y, x].permute(0, 3, 1, 2)  # (N, dim, 3, 3)
        offsets = self.offset_conv(patches)[:, :, 0, 0].clamp(-most, most)
        points = places[:, None] + offsets.unflatten(1, (2, -1)).transpose(1, 2)  # (N, points, 2)
        read_there = read(features, points.flatten(0, 1)).T[None, :, :, None]
        mixed = F.selu(self.sf_conv(read_there))[0, :, :, 0].unflatten(1, points.shape[:2])  # (dim, N, points)
        return F.normalize(torch.einsum("cnp,pcd->nd", mixed, self.agg_weights), dim=1)


class Deformable(nn.Module):
    """A 3x3 convolution whose nine sampling positions are offset by another convolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.offset_conv = nn.Conv2d(channels_in, 18, 3, padding=1)
        self.regular_conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        most = max(height, width) / 4
        offsets = self.offset_conv(x).clamp(-most, most).unflatten(1, (9, 2))  # y, x of each cell
        rows = torch.arange(height, device=x.device, dtype=x.dtype)[:, None]
        columns = torch.arange(width, device=x.device, dtype=x.dtype)
        out = torch.zeros((), device=x.device)
        for cell in range(9):
            at_y = rows + cell // 3 - 1 + offsets[:, cell, 0]
            at_x = columns + cell % 3 - 1 + offsets[:, cell, 1]
            grid = torch.stack([2 * at_x / max(width - 1, 1) - 1, 2 * at_y / max(height - 1, 1) - 1], dim=-1)
            moved = F.grid_sample(x, grid, align_corners=True)
            out = out + F.conv2d(moved, self.regular_conv.weight[:, :, cell // 3, cell % 3, None, None])
        return out


def convolution(channels_in: int, channels_out: int, *, deformable: bool) -> nn.Module:
    if deformable:
        return Deformable(channels_in, channels_out)
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)


class ConvBlock(nn.Module):
    """Two convolutions, each with batch normalisation and SELU."""

    def __init__(self, channels_in: int, channels_out: int, *, deformable: bool = False) -> None:
        super().__init__()
        self.conv1 = convolution(channels_in, channels_out, deformable=deformable)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = convolution(channels_out, channels_out, deformable=deformable)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.selu(self.bn2(self.conv2(F.selu(self.bn1(self.conv1(x))))))


class ResBlock(ConvBlock):
    """The same block with a residual connection, added before the last SELU."""

    def __init__(self, channels_in: int, channels_out: int, *, deformable: bool = False) -> None:
        super().__init__(channels_in, channels_out, deformable=deformable)
        self.downsample = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.selu(self.downsample(x) + self.bn2(self.conv2(F.selu(self.bn1(self.conv1(x))))))
