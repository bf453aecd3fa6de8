"""The small network included in the package: RoMa's design at a small fraction of its size, for CPUs.

Operates on tensors only. Source of the design: RoMa (arXiv 2305.15404), sections 3.1 to 3.3; each class states where it
differs and why.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from romacli.errors import WeightsError

from .output import NetworkMatch, Unfinished
from .parts.attention import attention
from .parts.float32 import without_autocast
from .parts.local_correlation import local_correlation
from .parts.maps import sample
from .parts.pointwise import Linear, PointwiseConv2d
from .parts.pooling import generalized_mean
from .parts.solve import solve_positive_definite
from .weights import read_weights

COARSE_STRIDE = 16
REFINED_STRIDES = (8, 4, 2)
GP_NOISE = 0.1  # variance on the diagonal, as in RoMa's released models
DISPLACEMENT_GAIN = 4.0  # brings typical displacements, in normalised units, to the scale of the features
CORRELATION_GAIN = 3.0  # the same for cosines of descriptors
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LAYOUT = "romacli-mini-1"
DESCRIPTOR_POWER = 8.0
CONTEXT_HEAD = 32  # channels of an attention head
_TOKENS = ("tokens", "alpha")  # what the decoder reads of an image
_MIRRORED = "mirrored_"  # prefix of the same of the mirrored image
_OTHER_DIRECTION = 0.5  # weight of its logits; 0.25 and 1 were worse in the mean of three kinds of rendered pairs
WITHOUT_CONTEXT = {"context_blocks": 0, "crossings": 0}  # of weight files older than these fields


@dataclass(frozen=True)
class MiniConfig:
    """Widths and depths; the three-tuples are for the refined strides 8, 4, 2.

    The defaults have 8.0 M parameters. Widths are multiples of 16, the block size of bfloat16 matrix units. The last
    five fields are varied in studies (see `romacli train --setup`).

    Attributes:
        context_blocks: blocks of attention among the tokens of one image, before images are compared.
        crossings: number of the decoder's blocks, the last ones, before which A's tokens attend to B's.
        crossing_width: channels in which the decoder compares its own features with B's tokens for the anchors.
        shared_trunk: one trunk for all strides; otherwise the refined strides have a second one.
        transformer: the coarse decoder's blocks attend to all tokens; otherwise they are convolutions of 3 x 3 tokens.
        classifies: the coarse decoder outputs anchor logits; otherwise coordinates.
        cosines: added to the anchors' logits.
        ensemble: when matching, anchor logits are the mean over the images and the images mirrored, plus a part of
            those of the other direction.
    """

    trunk_channels: tuple[int, ...] = (32, 64, 128, 256)
    trunk_blocks: tuple[int, ...] = (0, 1, 2, 2)
    fourier_channels: int = 128
    decoder_width: int = 192
    decoder_blocks: int = 3
    decoder_heads: int = 6
    context_blocks: int = 3
    crossings: int = 3
    crossing_width: int = 64
    anchors_per_side: int = 24
    refiner_features: tuple[int, ...] = (48, 32, 16)
    refiner_descriptors: tuple[int, ...] = (32, 32, 0)
    refiner_radius: tuple[int, ...] = (3, 2, 0)
    refiner_width: tuple[int, ...] = (96, 64, 32)
    refiner_convolutions: tuple[int, ...] = (3, 2, 2)
    shared_trunk: bool = True
    transformer: bool = True
    classifies: bool = True
    cosines: bool = True
    ensemble: bool = True


@dataclass(frozen=True)
class Stage:
    """One level of refinement: its initial warp, its result and the result's certainty.

    `start` and `warp` are (B, h, w, 2) normalised, `certainty` (B, h, w) logits. The anchor decoder has no initial
    warp; its stage repeats `warp` as `start`.
    """

    start: Tensor
    warp: Tensor
    certainty: Tensor


@dataclass(frozen=True)
class MiniTrace:
    """Everything one pass over a batch computes, for the losses: logits, cosines and all stages in order.

    `anchor_logits` is (B, h, w, anchors), or (B, h, w, 2) coordinates if the network does not classify;
    `correlation` (B, N_source, N_target) cosines of the tokens.
    """

    anchor_logits: Tensor
    correlation: Tensor
    stages: tuple[Stage, ...]


def pixel_grid(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return the normalised centres (H, W, 2) of a grid's cells, x first."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height * 2 - 1
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width * 2 - 1
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def convolution(channels_in: int, channels_out: int, *, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Return convolution, batch norm and ReLU, the building block of trunk and refiners."""
    if kernel == 1:
        layer: nn.Conv2d = PointwiseConv2d(channels_in, channels_out, bias=False)
    else:
        layer = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Trunk(nn.Module):
    """Features at strides 2, 4, 8 and 16 from contrast-normalised gray, from a single trunk.

    RoMa combines a frozen DINOv2 with VGG19; both are too large for a CPU, so one small ResNet replaces them.
    """

    def __init__(self, config: MiniConfig, *, with_coarse: bool = True) -> None:
        super().__init__()
        channels, blocks = config.trunk_channels, config.trunk_blocks
        self.stem = nn.Sequential(
            convolution(1, channels[0], stride=2, kernel=5),
            *(ResidualBlock(channels[0]) for _ in range(blocks[0])),
        )
        self.levels = nn.ModuleList(
            nn.Sequential(
                convolution(channels[i], channels[i + 1], stride=2),
                *(ResidualBlock(channels[i + 1]) for _ in range(blocks[i + 1])),
            )
            for i in range(3 if with_coarse else 2)
        )

    def forward(self, image: Tensor, *, with_coarse: bool = True) -> dict[int, Tensor]:
        x = self.stem(normalised_gray(image))
        features = {2: x}
        for stride, level in zip((4, 8, 16), self.levels, strict=False):
            if stride == COARSE_STRIDE and not with_coarse:
                break
            x = level(x)  # (B, C, H/stride, W/stride)
            features[stride] = x
        return features


def normalised_gray(image: Tensor) -> Tensor:
    """Turn ImageNet-normalised RGB (B, 3, H, W) into gray (B, 1, H, W) with mean 0 and deviation about 1."""
    mean = torch.tensor(IMAGENET_MEAN, device=image.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=image.device).view(1, 3, 1, 1)
    gray = (image.float() * std + mean).mean(dim=1, keepdim=True)
    centred = gray - gray.mean(dim=(2, 3), keepdim=True)
    return centred / (centred.square().mean(dim=(2, 3), keepdim=True).sqrt() + 0.016)


class MatchEncoder(nn.Module):
    """Regress, for each token of A, the Fourier coordinates of its match in B with a Gaussian process.

    Source: RoMa section 3.2 (exponential cosine kernel, cosine basis); the inverse temperature is learned, starting
    from 5. Solved once per image in `condition`, so a pair costs one kernel and one product.
    """

    frequency: Tensor
    phase: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_inverse_temperature = nn.Parameter(torch.tensor(math.log(5.0)))
        self.register_buffer("frequency", torch.randn(channels, 2) * 6.0)
        self.register_buffer("phase", torch.rand(channels) * 2 * math.pi)

    def kernel(self, cosine: Tensor) -> Tensor:
        return torch.exp((cosine - 1) * self.log_inverse_temperature.exp())

    def coordinates(self, height: int, width: int) -> Tensor:
        """Return the Fourier features (H*W, channels) of a grid's cell centres."""
        grid = pixel_grid(height, width, self.frequency.device).reshape(-1, 2)
        return torch.cos(grid @ self.frequency.T + self.phase)

    def condition(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Return alpha = (K_BB + noise I)^-1 f(grid), (B, N, channels), from unit tokens (B, N, C)."""
        gram = self.kernel(tokens @ tokens.transpose(1, 2))
        gram = gram + GP_NOISE * torch.eye(gram.shape[1], device=gram.device)
        basis = self.coordinates(height, width).expand(gram.shape[0], -1, -1)
        return solve_positive_definite(gram, basis, strict=not self.training)

    def forward(self, cosine: Tensor, alpha: Tensor) -> Tensor:
        return self.kernel(cosine) @ alpha  # (B, N_A, channels)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Return the values (B, M, C) attended to by queries (B, N, C) with keys (B, M, C), as (B, N, C)."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    if torch.is_grad_enabled():
        # The fused CPU kernel's backward pass is four times slower at these token counts.
        attended = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(dim=-1) @ value
    else:
        attended = attention(query, key, value)
    return attended.transpose(1, 2).flatten(2)


def two_layers(width: int, last: nn.Linear | None = None) -> nn.Sequential:
    last = last or Linear(3 * width, width)
    return nn.Sequential(nn.LayerNorm(width), Linear(width, 3 * width), nn.GELU(), last)


def zeroed(layer: nn.Linear) -> nn.Linear:
    """Return the layer with zeros, so that a block added to trained weights changes nothing until it is trained."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class ContextBlock(nn.Module):
    """Attention among the tokens of one image, which tells repeated elements apart by what is elsewhere.

    Positions enter queries and keys only, so they are not part of what is compared between images.
    """

    def __init__(self, width: int, fourier_channels: int) -> None:
        super().__init__()
        self.heads = max(1, width // CONTEXT_HEAD)
        self.attention_norm = nn.LayerNorm(width)
        self.position = Linear(fourier_channels, width)
        self.query_key = Linear(width, 2 * width)
        self.value = Linear(width, width)
        self.projection = zeroed(Linear(width, width))
        self.mlp = two_layers(width, zeroed(Linear(3 * width, width)))

    def forward(self, x: Tensor, own: Tensor) -> Tensor:
        """Return updated tokens (B, N, C); `own` are their Fourier coordinates (N, fourier channels)."""
        inner = self.attention_norm(x)
        query, key = self.query_key(inner + self.position(own)).chunk(2, dim=-1)
        x = x + self.projection(attend(query, key, self.value(inner), self.heads))
        return x + self.mlp(x)


class Crossing(nn.Module):
    """Attention of the decoder's tokens of A to B's tokens, which include their Fourier coordinates."""

    def __init__(self, width: int, heads: int, other_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = Linear(width, width)
        self.key_value = Linear(other_width, 2 * width)
        self.projection = zeroed(Linear(width, width))

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        key, value = self.key_value(other).chunk(2, dim=-1)
        return x + self.projection(attend(self.query(self.norm(x)), key, value, self.heads))


class DecoderBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width)
        self.projection = Linear(width, width)
        self.mlp = two_layers(width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        x = x + self.projection(attend(query, key, value, self.heads))
        return x + self.mlp(x)


class ConvolutionBlock(nn.Module):
    """The block without attention: about as many parameters, but tokens see only their neighbours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)  # (B, C, h, w)


class AnchorDecoder(nn.Module):
    """Classify every token of A over a grid of anchors in B, and predict whether it has a match.

    Source: RoMa section 3.3. Two differences, both worth more than depth at this size: the cosines with B's tokens,
    resampled to the anchors, are added to the logits; and each token receives its own Fourier coordinates, which
    DINOv2 features contain implicitly and those of a small trunk do not. In addition tokens attend to B's between the
    blocks, and products of the decoder's features with B's tokens are added to the cosines.
    """

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.config = config
        self.input = Linear(config.trunk_channels[3] + 2 * config.fourier_channels, width)
        self.blocks = nn.ModuleList(
            DecoderBlock(width, config.decoder_heads) if config.transformer else ConvolutionBlock(width)
            for _ in range(config.decoder_blocks)
        )
        other_width = config.trunk_channels[3] + config.fourier_channels
        self.crossings = nn.ModuleList(
            Crossing(width, config.decoder_heads, other_width) for _ in range(config.crossings)
        )
        if config.crossings:
            self.sought = zeroed(Linear(width, config.crossing_width))
            self.found = Linear(other_width, config.crossing_width)
        self.norm = nn.LayerNorm(width)
        self.output = Linear(width, (config.anchors_per_side**2 if config.classifies else 2) + 1)
        self.log_correlation_gain = nn.Parameter(torch.tensor(math.log(15.0)))

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        posterior: Tensor,
        correlation: Tensor,
        *,
        coordinates: tuple[Tensor, Tensor],
        shapes: tuple[Sequence[int], Sequence[int]],
    ) -> tuple[Tensor, Tensor]:
        """Return anchor logits (B, N, anchors) and certainty logits (B, N).

        Args:
            source, target: (B, N, C) unit tokens of A and of B.
            posterior: (B, N, F) Fourier coordinates of A's matches. correlation: (B, N, N_target) cosines.
            coordinates, shapes: Fourier coordinates (N, F) and sides of A's and B's token grids.
        """
        scale = source.shape[-1] ** 0.5 * 0.3  # scales entries of unit vectors to match the cosine basis
        own, others = (x.expand(len(source), -1, -1) for x in coordinates)
        x = self.input(torch.cat((source * scale, posterior, own), dim=-1))
        other = torch.cat((target * scale, others), dim=-1)
        if not self.config.transformer:
            x = x.transpose(1, 2).unflatten(2, tuple(shapes[0]))
        first = len(self.blocks) - len(self.crossings)
        for index, block in enumerate(self.blocks):
            if index >= first:
                x = self.crossings[index - first](x, other)
            x = block(x)
        if not self.config.transformer:
            x = x.flatten(2).transpose(1, 2)
        x = self.norm(x)
        out = self.output(x).float()
        if not (self.config.classifies and self.config.cosines):
            return out[..., :-1], out[..., -1]
        similarity = correlation * self.log_correlation_gain.exp()
        if self.config.crossings:
            similarity = similarity + (self.sought(x) @ self.found(other).transpose(1, 2)).float()
        on_anchors = F.interpolate(
            similarity.reshape(-1, 1, *shapes[1]),
            (self.config.anchors_per_side,) * 2,
            mode="bilinear",
            align_corners=False,
        ).view_as(out[..., :-1])
        return out[..., :-1] + on_anchors, out[..., -1]


def decode_anchors(logits: Tensor, anchors_per_side: int) -> Tensor:
    """Return warps (..., 2): the mean of the best anchor and its eight neighbours, weighted by probability.

    Source: RoMa section 3.3, which uses four neighbours; here neighbours beyond the border are excluded, where RoMa's
    index wraps.
    """
    side = anchors_per_side
    probability = logits.softmax(dim=-1)
    best = probability.argmax(dim=-1)
    step = torch.arange(-1, 2, device=logits.device)
    row = (torch.div(best, side, rounding_mode="floor")[..., None] + step)[..., :, None]
    column = (best.remainder(side)[..., None] + step)[..., None, :]
    inside = ((row >= 0) & (row < side) & (column >= 0) & (column < side)).flatten(-2)
    index = (row.clamp(0, side - 1) * side + column.clamp(0, side - 1)).flatten(-2)  # (..., 9)
    weight = probability.gather(-1, index) * inside
    centres = pixel_grid(side, side, logits.device).reshape(-1, 2)[index]
    return (weight[..., None] * centres).sum(-2) / weight.sum(-1, keepdim=True)


def mirrored_logits(logits: Tensor, anchors_per_side: int) -> Tensor:
    """Return the anchor logits (B, h, w, anchors) of two images from those of the same images mirrored."""
    return logits.unflatten(-1, (anchors_per_side, -1)).flip(2, -1).flatten(-2)


def other_direction(logits: Tensor, anchors_per_side: int) -> Tensor:
    """Return, for every token and anchor, the logit of the opposite match, from the anchor to the token.

    Args:
        logits: (2B, h, w, anchors), of B pairs in one direction, then in the other.
    """
    shape = logits.shape[1:3]
    there = torch.cat(logits.chunk(2)[::-1]).flatten(1, 2).unflatten(-1, (anchors_per_side, -1))
    on_tokens = F.interpolate(there, shape, mode="bilinear", align_corners=False)  # (2B, there, h, w)
    back = on_tokens.flatten(2).transpose(1, 2).unflatten(-1, shape)  # (2B, here, h, w)
    on_anchors = F.interpolate(back, (anchors_per_side,) * 2, mode="bilinear", align_corners=False)
    return on_anchors.flatten(2).unflatten(1, shape)


class Refiner(nn.Module):
    """Move a warp by a few cells of one stride, from both images' features and a local correlation.

    Source: RoMa section 3.3 and its released refiners. Dense 3x3 convolutions replace the depthwise 5x5 ones, which are
    slow on CPUs; descriptors have their own loss instead of a gradient through the correlation.
    """

    def __init__(self, channels: int, config: MiniConfig, level: int) -> None:
        super().__init__()
        features, width = config.refiner_features[level], config.refiner_width[level]
        self.radius = config.refiner_radius[level]
        self.features = nn.Sequential(PointwiseConv2d(channels, features, bias=False), nn.BatchNorm2d(features))
        self.descriptors = PointwiseConv2d(channels, config.refiner_descriptors[level]) if self.radius else None
        self.displacement = PointwiseConv2d(2, 8)
        correlations = (2 * self.radius + 1) ** 2 if self.radius else 0
        self.body = nn.Sequential(
            convolution(2 * features + 8 + correlations, width, kernel=1),
            *(convolution(width, width) for _ in range(config.refiner_convolutions[level])),
        )
        self.output = PointwiseConv2d(width, 3)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def describe(self, x: Tensor) -> dict[str, Tensor]:
        """Return the part that depends on one image: projected features and, with a correlation, descriptors."""
        described = {"features": self.features(x)}
        if self.descriptors is not None:
            raw = self.descriptors(x)
            described["descriptors"] = F.normalize(raw.float(), dim=1).to(raw.dtype)
        return described

    def forward(
        self, source: Mapping[str, Tensor], target: Mapping[str, Tensor], warp: Tensor, certainty: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the moved warp (B, H, W, 2) and the updated certainty logits (B, H, W)."""
        features = source["features"]
        height, width = features.shape[2:]
        flow = warp.permute(0, 3, 1, 2)
        # In float32: a bfloat16 coordinate is off by half a pixel at 320 cells.
        sampled = sample(target["features"], flow).to(features.dtype)
        displacement = flow - pixel_grid(height, width, warp.device).permute(2, 0, 1)
        parts = [features, sampled, self.displacement(displacement * DISPLACEMENT_GAIN).to(features.dtype)]
        if self.radius:
            with torch.no_grad():
                local = local_correlation(source["descriptors"], target["descriptors"], flow, self.radius)
            gain = CORRELATION_GAIN * source["descriptors"].shape[1] ** 0.5  # descriptors have unit length
            parts.append((local * gain).to(features.dtype))
        # Each of them first: joining maps of unlike layouts takes several times as long.
        x = torch.cat([part.contiguous(memory_format=torch.channels_last) for part in parts], dim=1)
        change = self.output(self.body(x)).float()  # (B, 3, H, W)
        cell = warp.new_tensor([2 / width, 2 / height])
        return warp + change[:, :2].permute(0, 2, 3, 1) * cell, certainty + change[:, 2]


class Mini(nn.Module):
    """The whole matcher; `encode` runs once per image, `match` once per pair.

    Attributes:
        config: the configuration it was built from.
        log_token_gain, log_descriptor_gain: learned inverse temperatures of the contrastive losses; unused
            when matching.
    """

    def __init__(self, config: MiniConfig | None = None) -> None:
        super().__init__()
        self.config = config or MiniConfig()
        channels = self.config.trunk_channels
        self.trunk = Trunk(self.config)
        self.fine_trunk = None if self.config.shared_trunk else Trunk(self.config, with_coarse=False)
        self.context = nn.ModuleList(
            ContextBlock(channels[3], self.config.fourier_channels) for _ in range(self.config.context_blocks)
        )
        self.tokens = PointwiseConv2d(channels[3], channels[3])
        self.match_encoder = MatchEncoder(self.config.fourier_channels)
        self.decoder = AnchorDecoder(self.config)
        self.refiners = nn.ModuleDict(
            {str(stride): Refiner(channels[2 - i], self.config, i) for i, stride in enumerate(REFINED_STRIDES)}
        )
        self.log_token_gain = nn.Parameter(torch.tensor(math.log(15.0)))
        self.log_descriptor_gain = nn.Parameter(torch.full((2,), 2.5))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, coarse: Tensor, fine: Tensor | None = None) -> dict[str, Tensor]:
        """Return everything that depends on one image alone, batched along the first dimension of each tensor.

        Args:
            coarse: (B, 3, Hc, Wc) float32, ImageNet-normalised, sides multiples of 16.
            fine: (B, 3, Hf, Wf) of the same images, sides multiples of 8, or None for a single pass.
        """
        pyramid = self.pyramid(coarse)
        encoded = self.encode_tokens(pyramid) | self._mirrored(coarse) | self._describe("coarse", pyramid)
        if fine is not None:
            encoded |= self._describe("fine", self.pyramid(fine, with_coarse=False))
        return encoded

    def pyramid(self, image: Tensor, *, with_coarse: bool = True) -> dict[int, Tensor]:
        """Return features (B, C, h, w) of (B, 3, H, W) images by stride, from both trunks if there are two."""
        if self.fine_trunk is None:
            return self.trunk(image, with_coarse=with_coarse)
        maps: dict[int, Tensor] = self.fine_trunk(image)
        return maps | {COARSE_STRIDE: self.trunk(image)[COARSE_STRIDE]} if with_coarse else maps

    def encode_coarse(self, coarse: Tensor) -> dict[str, Tensor]:
        """Return the inputs of `start` for (B, 3, Hc, Wc) images, and a global `descriptor` (B, D) of each.

        The descriptor pools the trunk at strides 8 and 16: on rendered walks it found more true overlaps than either
        level alone, lower powers, or the tokens used for matching.
        """
        pyramid = self.pyramid(coarse)
        pooled = [generalized_mean(pyramid[stride], DESCRIPTOR_POWER) for stride in (COARSE_STRIDE, 8)]
        tokens = self.encode_tokens(pyramid) | self._mirrored(coarse)
        return tokens | {"descriptor": F.normalize(torch.cat(pooled, dim=1), dim=1)}

    def encode_tokens(self, pyramid: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """Return the inputs of `start` from the images' features at stride 16."""
        tokens = self.compared(pyramid)
        height, width = tokens.shape[2:]
        with without_autocast(tokens):
            tokens = F.normalize(tokens.float().flatten(2).transpose(1, 2), dim=-1)
            alpha = self.match_encoder.condition(tokens, height, width)
        return {
            "tokens": tokens.unflatten(1, (height, width)),  # (B, h, w, C)
            "alpha": alpha.unflatten(1, (height, width)),
        }

    def _mirrored(self, coarse: Tensor) -> dict[str, Tensor]:
        """Return the tokens of the mirrored images, if the decoder looks at them too."""
        if not self._ensemble:
            return {}
        pyramid = self.trunk(coarse.flip(-1))
        return {_MIRRORED + name: tensor for name, tensor in self.encode_tokens(pyramid).items()}

    @property
    def _ensemble(self) -> bool:
        return self.config.ensemble and self.config.classifies and not self.training

    def compared(self, pyramid: Mapping[int, Tensor]) -> Tensor:
        """Return the tokens (B, C, h, w) that are compared, not yet of unit length, from features at stride 16."""
        x = pyramid[COARSE_STRIDE]
        if self.context:
            shape = (int(x.shape[2]), int(x.shape[3]))
            own = self.match_encoder.coordinates(*shape)
            x = x.flatten(2).transpose(1, 2)
            for block in self.context:
                x = block(x, own)
            x = x.transpose(1, 2).unflatten(2, shape)
        tokens: Tensor = self.tokens(x)
        return tokens

    def descriptors(self, pyramid: Mapping[int, Tensor], stride: int) -> Tensor:
        """Return the unit descriptors (B, C, h, w) that a stride's refiner compares, from the trunk's features."""
        return self._refiner(stride).describe(pyramid[stride])["descriptors"]

    def match(self, encoded_A: Mapping[str, Tensor], encoded_B: Mapping[str, Tensor]) -> NetworkMatch:
        """Return the warps between A and B at half the side of the finest input (see `NetworkMatch`)."""
        return self.result(self.refine(self.start(encoded_A, encoded_B), encoded_A, encoded_B))

    def start(self, encoded_A: Mapping[str, Tensor], encoded_B: Mapping[str, Tensor]) -> Unfinished:
        """Return the decoder's warps of pairs in both directions, one value per token; reads `encode_coarse`."""
        both = _both_ways(encoded_A, encoded_B, [k for k in encoded_A if k.removeprefix(_MIRRORED) in _TOKENS])
        stage = self._decode(both, swap_halves(both)).stages[0]
        return Unfinished({"warp": stage.warp, "certainty": stage.certainty}, directions=2)

    def begin(self, warp: Tensor, certainty: Tensor) -> Unfinished:
        """Return a state for `refine` from an external coarse warp.

        Args:
            warp: (2, h, w, 2) normalised, from A to B and from B to A. certainty: (2, h, w) logits.
        """
        return Unfinished({"warp": warp, "certainty": certainty}, directions=2)

    def refine(
        self,
        state: Unfinished,
        encoded_A: Mapping[str, Tensor],
        encoded_B: Mapping[str, Tensor],
        *,
        down_to: int | None = None,
    ) -> Unfinished:
        """Refine pairs: by all remaining steps, or within the first pass down to a given stride."""
        steps = _steps(encoded_A)
        end = len(steps) if down_to is None else sum(image == "coarse" and s >= down_to for image, s in steps)
        warp, certainty = state.tensors["warp"], state.tensors["certainty"]
        stage = Stage(warp, warp, certainty)
        for image, stride in steps[state.steps : end]:
            prefix = f"{image}_{stride}_"
            both = _both_ways(encoded_A, encoded_B, [key for key in encoded_A if key.startswith(prefix)])
            stage = self._refine(stage, both, swap_halves(both), prefix, stride)
        return Unfinished({"warp": stage.warp, "certainty": stage.certainty}, 2, max(state.steps, end))

    def result(self, state: Unfinished) -> NetworkMatch:
        """Return the current warps of pairs in both directions."""
        warp, certainty = _finished(state.tensors["warp"], state.tensors["certainty"])
        (warp_AB, warp_BA), (certainty_AB, certainty_BA) = warp.chunk(2), certainty.chunk(2)
        return NetworkMatch(warp_AB, certainty_AB, warp_BA, certainty_BA)

    def trace(self, encoded: Mapping[str, Tensor]) -> MiniTrace:
        """Return all stages of matching, in both directions; an image's partner is in the other half of the batch.

        Gradients are stopped between stages (RoMa section 3.4).
        """
        partners = swap_halves(encoded)
        first = self._decode(encoded, partners)
        stages = [*first.stages]
        for image, stride in _steps(encoded):
            stages.append(self._refine(stages[-1], encoded, partners, f"{image}_{stride}_", stride))
        return MiniTrace(first.anchor_logits, first.correlation, tuple(stages))

    def _decode(self, source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> MiniTrace:
        """Return the first stage, from tokens and the Gaussian process's solution only; see `trace`.

        In an ensemble, the images mirrored and the other direction add to it what they say of the same anchors.
        """
        logits, certainty, correlation = self._look(source, target)
        side = self.config.anchors_per_side
        if self._ensemble:
            mirrored = (_with_prefix(encoded, _MIRRORED) for encoded in (source, target))
            other_logits, other_certainty, _ = self._look(*mirrored)
            logits = (logits + mirrored_logits(other_logits, side)) / 2
            logits = logits + _OTHER_DIRECTION * other_direction(logits, side)
            certainty = (certainty + other_certainty.flip(2)) / 2
        warp = logits.detach()
        if self.config.classifies:
            warp = decode_anchors(warp, side)
        return MiniTrace(logits, correlation, (Stage(warp, warp, certainty),))

    def _look(self, source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the decoder's logits (B, h, w, anchors) and certainty logits (B, h, w), and the tokens' cosines."""
        shape_source, shape_target = source["tokens"].shape[1:3], target["tokens"].shape[1:3]
        with without_autocast(source["tokens"]):
            first, second = source["tokens"].flatten(1, 2).chunk(2)
            forward = first @ second.transpose(1, 2)
            correlation = torch.cat((forward, forward.transpose(1, 2)))
            posterior = self.match_encoder(correlation, target["alpha"].flatten(1, 2))
            coordinates = tuple(self.match_encoder.coordinates(*shape) for shape in (shape_source, shape_target))
        logits, certainty = self.decoder(
            source["tokens"].flatten(1, 2),
            target["tokens"].flatten(1, 2),
            posterior,
            correlation,
            coordinates=coordinates,
            shapes=(shape_source, shape_target),
        )
        return logits.unflatten(1, shape_source), certainty.unflatten(1, shape_source), correlation

    def _describe(self, image: str, pyramid: Mapping[int, Tensor]) -> dict[str, Tensor]:
        return {
            f"{image}_{stride}_{name}": tensor
            for stride in REFINED_STRIDES
            for name, tensor in self._refiner(stride).describe(pyramid[stride]).items()
        }

    def _refine(
        self,
        last: Stage,
        source: Mapping[str, Tensor],
        target: Mapping[str, Tensor],
        prefix: str,
        stride: int,
    ) -> Stage:
        mine, other = _with_prefix(source, prefix), _with_prefix(target, prefix)
        shape = mine["features"].shape[2:]
        warp = _resized(last.warp.detach().permute(0, 3, 1, 2), shape).permute(0, 2, 3, 1)
        certainty = _resized(last.certainty.detach()[:, None], shape)[:, 0]
        return Stage(warp, *self._refiner(stride)(mine, other, warp, certainty))

    def _refiner(self, stride: int) -> Refiner:
        refiner = self.refiners[str(stride)]
        assert isinstance(refiner, Refiner)
        return refiner


def swap_halves(encoded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the same features with the halves of the batch swapped, so that row i is paired with its partner."""
    return {key: torch.cat(value.chunk(2)[::-1]) for key, value in encoded.items()}


def _steps(encoded: Mapping[str, Tensor]) -> list[tuple[str, int]]:
    """Return the refinements that the images are encoded for, in order: image size and stride."""
    return [
        (image, stride)
        for image in ("coarse", "fine")
        for stride in REFINED_STRIDES
        if f"{image}_{stride}_features" in encoded
    ]


def _both_ways(
    encoded_A: Mapping[str, Tensor], encoded_B: Mapping[str, Tensor], names: Sequence[str]
) -> dict[str, Tensor]:
    """Return selected features as the source of both directions: A's, then B's."""
    return {name: torch.cat((encoded_A[name], encoded_B[name])) for name in names}


def _with_prefix(encoded: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in encoded.items() if key.startswith(prefix)}


def _resized(x: Tensor, shape: Sequence[int]) -> Tensor:
    # Contiguous, as few channels that are adjacent in memory take four times as long.
    return F.interpolate(x.contiguous(), tuple(shape), mode="bilinear", align_corners=False)


def _finished(warp: Tensor, certainty: Tensor) -> tuple[Tensor, Tensor]:
    """Clamp the warp to the image and set certainty 0 where it was outside (as in RoMa's released code)."""
    inside = (warp.abs() <= 1).all(dim=-1)
    return warp.clamp(-1, 1), certainty.sigmoid() * inside


def load_mini(path: Path) -> Mini:
    """Load the network stored at `path`, in float32, ready to match, with batch norms folded.

    Raises:
        WeightsError: as `read_mini`.
    """
    return without_batch_norm(read_mini(path).eval())


def read_mini(path: Path) -> Mini:
    """Load the network stored at `path` in float32 as trained, to continue training.

    Raises:
        WeightsError: the file is missing, damaged, or contains another network; the message names what differs.
    """
    metadata, state = read_weights(path)
    if metadata.get("layout") != LAYOUT:
        found = metadata.get("layout", "weights of another network")
        raise WeightsError(f"{path} contains {found}, not {LAYOUT}. Give a file made by romacli train.")
    network = Mini(config_from_json(metadata["config"]))
    expected = weights_of(network)
    different = sorted(
        (expected.keys() ^ state.keys())
        | {key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape}
    )
    if different:
        raise WeightsError(
            f"{path} does not fit the 'mini' it describes: {len(different)} tensors are missing, extra or of "
            f"another shape, first {different[0]}. Fetch it again or train a new one."
        )
    network.load_state_dict({key: value.float() for key, value in state.items()}, strict=False)
    return network


def with_context(network: Mini, config: MiniConfig) -> Mini:
    """Return the network with the context blocks and crossings of `config`, which change nothing until trained.

    A network that has them already, or whose decoder is convolutional, is returned as it is.
    """
    if network.context or not network.config.transformer:
        return network
    grown = Mini(
        replace(
            network.config,
            context_blocks=config.context_blocks,
            crossings=min(config.crossings, network.config.decoder_blocks),
            crossing_width=config.crossing_width,
        )
    )
    grown.load_state_dict(network.state_dict(), strict=False)
    return grown


def without_batch_norm(network: Mini) -> Mini:
    """Fold each batch norm of a network in evaluation mode into the preceding convolution, in place."""
    for module in network.modules():
        if not isinstance(module, nn.Sequential) or len(module) < 2:
            continue
        first, second = module[0], module[1]
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            module[0], module[1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return network


def weights_of(network: Mini) -> dict[str, Tensor]:
    """Return the tensors stored in a weight file: all but batch norm's step counters, which inference ignores."""
    state = network.state_dict()
    return {key: state[key].contiguous() for key in state if not key.endswith("num_batches_tracked")}


def config_to_json(config: MiniConfig) -> str:
    """Return the configuration as one line of JSON for weight files; study fields appear only if not the default."""
    plain = MiniConfig()
    values = {k: v for k, v in asdict(config).items() if not isinstance(v, bool) or v != getattr(plain, k)}
    return json.dumps(values)


def config_from_json(text: str) -> MiniConfig:
    """Return the configuration written by `config_to_json`."""
    stored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
    return MiniConfig(**(WITHOUT_CONTEXT | stored))
