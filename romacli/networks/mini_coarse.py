"""The coarse stage of the small network, read top-down: Gaussian process, context, decoder and anchors.

Source: RoMa (arXiv 2305.15404), sections 3.2 and 3.3; each class states where it differs and why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .mini_config import MiniConfig
from .parts.attention import attention
from .parts.maps import cell_centres, resized
from .parts.maps import tokens as as_tokens
from .parts.pointwise import Linear
from .parts.solve import solve_positive_definite

GP_NOISE = 0.1  # variance on the diagonal, as in RoMa's released models
CONTEXT_HEAD = 32  # channels of an attention head


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
        grid = cell_centres(height, width, self.frequency.device).reshape(-1, 2)
        return torch.cos(grid @ self.frequency.T + self.phase)

    def condition(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Return alpha = (K_BB + noise I)^-1 f(grid), (B, N, channels), from unit tokens (B, N, C)."""
        gram = self.kernel(tokens @ tokens.transpose(1, 2))
        gram = gram + GP_NOISE * torch.eye(gram.shape[1], device=gram.device)
        basis = self.coordinates(height, width).expand(gram.shape[0], -1, -1)
        return solve_positive_definite(gram, basis, strict=not self.training)

    def forward(self, cosine: Tensor, alpha: Tensor) -> Tensor:
        return self.kernel(cosine) @ alpha  # (B, N_A, channels)


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


@dataclass(frozen=True)
class AcrossScales:
    """What tokens of A find where one of the images has half its size, on the token grids of the whole images.

    `posteriors` is (B, N, 2F): Fourier coordinates of A's matches in the half of B, then those of the half of A.
    `correlations` are (B, N, N_target) cosines in the same order, and `compared` the same on the tokens' own grids:
    (B, H, W, N_half) for images A, and (B, h, w, N_target) for their halves.
    """

    posteriors: Tensor
    correlations: tuple[Tensor, Tensor]
    compared: tuple[Tensor, Tensor]


def across_scales(
    encoder: MatchEncoder,
    source: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    half_source: Mapping[str, Tensor],
    half_target: Mapping[str, Tensor],
) -> AcrossScales:
    """Compare images A with the halves of B, and the halves of A with B; each has "tokens" and "alpha" (B, h, w, C)."""

    def on_grid(values: Tensor, half: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> Tensor:
        """Values (B, h * w, C) of an image's half on the grid of the whole."""
        maps = values.transpose(1, 2).unflatten(2, half["tokens"].shape[1:3])
        return as_tokens(resized(maps, whole["tokens"].shape[1:3]))

    to_half = source["tokens"].flatten(1, 2) @ half_target["tokens"].flatten(1, 2).transpose(1, 2)
    from_half = half_source["tokens"].flatten(1, 2) @ target["tokens"].flatten(1, 2).transpose(1, 2)
    posteriors = (
        encoder(to_half, half_target["alpha"].flatten(1, 2)),
        on_grid(encoder(from_half, target["alpha"].flatten(1, 2)), half_source, source),
    )
    to_whole = on_grid(to_half.transpose(1, 2), half_target, target).transpose(1, 2)
    from_whole = on_grid(from_half, half_source, source)
    compared = (
        to_half.unflatten(1, source["tokens"].shape[1:3]),
        from_half.unflatten(1, half_source["tokens"].shape[1:3]),
    )
    return AcrossScales(torch.cat(posteriors, dim=-1), (to_whole, from_whole), compared)


class AnchorDecoder(nn.Module):
    """Classify every token of A over a grid of anchors in B, and predict whether it has a match.

    Source: RoMa section 3.3. Two differences, both worth more than depth at this size: the cosines with B's tokens,
    resampled to the anchors, are added to the logits; and each token receives its own Fourier coordinates, which
    DINOv2 features contain implicitly and those of a small trunk do not. In addition tokens attend to B's between the
    blocks, and products of the decoder's features with B's tokens are added to the cosines. In the last blocks they
    attend to those of the other direction, which know A, and products of both directions' features are added. Cosines
    across scales are added by a gate for each token.
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
        if config.scales > 1:
            self.across = zeroed(Linear(2 * config.fourier_channels, width))
            self.gates = zeroed(Linear(width, 2))
        self.exchanges = nn.ModuleList(Exchange(width, config.decoder_heads) for _ in range(config.exchanges))
        if config.exchanges:
            self.mine = zeroed(Linear(width, config.crossing_width))
            self.theirs = Linear(width, config.crossing_width)
        self.norm = nn.LayerNorm(width)
        self.output = Linear(width, (config.anchors_per_side**2 if config.classifies else 2) + 1)
        self.log_correlation_gain = nn.Parameter(torch.tensor(math.log(15.0)))

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        posterior: Tensor,
        correlation: Tensor,
        across: AcrossScales | None = None,
        *,
        coordinates: tuple[Tensor, Tensor],
        shapes: tuple[Sequence[int], Sequence[int]],
    ) -> tuple[Tensor, Tensor]:
        """Return anchor logits (B, N, anchors) and certainty logits (B, N).

        Args:
            source, target: (B, N, C) unit tokens of A and of B; both directions of the pairs, one in each half.
            posterior: (B, N, F) Fourier coordinates of A's matches. correlation: (B, N, N_target) cosines.
            across: the same where one image has half its size, if the images are compared at two scales.
            coordinates, shapes: Fourier coordinates (N, F) and sides of A's and B's token grids.
        """
        scale = source.shape[-1] ** 0.5 * 0.3  # scales entries of unit vectors to match the cosine basis
        own, others = (x.expand(len(source), -1, -1) for x in coordinates)
        x = self.input(torch.cat((source * scale, posterior, own), dim=-1))
        other = torch.cat((target * scale, others), dim=-1)
        if across is not None:
            x = x + self.across(across.posteriors)
        if not self.config.transformer:
            x = x.transpose(1, 2).unflatten(2, tuple(shapes[0]))
        first = len(self.blocks) - len(self.crossings)
        for index, block in enumerate(self.blocks):
            if index >= first:
                x = self.crossings[index - first](x, other)
            x = block(x)
        if not self.config.transformer:
            x = x.flatten(2).transpose(1, 2)
        for exchange in self.exchanges:
            x = exchange(x)
        x = self.norm(x)
        out = self.output(x).float()
        if not (self.config.classifies and self.config.cosines):
            return out[..., :-1], out[..., -1]
        if across is not None:
            for gate, cosines in zip(self.gates(x).float().split(1, dim=-1), across.correlations, strict=True):
                correlation = correlation + gate * cosines
        similarity = correlation * self.log_correlation_gain.exp()
        if self.config.crossings:
            similarity = similarity + (self.sought(x) @ self.found(other).transpose(1, 2)).float()
        if self.exchanges:
            similarity = similarity + (self.mine(x) @ self.theirs(other_half(x)).transpose(1, 2)).float()
        on_anchors = F.interpolate(
            similarity.reshape(-1, 1, *shapes[1]),
            (self.config.anchors_per_side,) * 2,
            mode="bilinear",
            align_corners=False,
        ).view_as(out[..., :-1])
        return out[..., :-1] + on_anchors, out[..., -1]


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


class Exchange(nn.Module):
    """A decoder block before which the tokens of each direction attend to those of the other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.crossing = Crossing(width, heads, width)
        self.block = DecoderBlock(width, heads)
        for last in (self.block.projection, self.block.mlp[-1]):
            assert isinstance(last, nn.Linear)
            zeroed(last)

    def forward(self, x: Tensor) -> Tensor:
        """Return updated tokens (2B, N, C), one direction in each half."""
        updated: Tensor = self.block(self.crossing(x, self.norm(other_half(x))))
        return updated


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
        convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.body = nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)  # (B, C, h, w)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Return the values (B, M, C) attended to by queries (B, N, C) with keys (B, M, C), as (B, N, C)."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    if torch.is_grad_enabled():
        # The fused CPU kernel's backward pass is four times slower at these token counts.
        attended = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(dim=-1) @ value
    else:
        attended = attention(query, key, value)
    return attended.transpose(1, 2).flatten(2)


def other_half(x: Tensor) -> Tensor:
    """Return (2B, ...) with the halves swapped: for each row, the same pair in the other direction."""
    return torch.cat(x.chunk(2)[::-1])


def two_layers(width: int, last: nn.Linear | None = None) -> nn.Sequential:
    last = last or Linear(3 * width, width)
    return nn.Sequential(nn.LayerNorm(width), Linear(width, 3 * width), nn.GELU(), last)


def zeroed(layer: nn.Linear) -> nn.Linear:
    """Return the layer with zeros, so that a block added to trained weights changes nothing until it is trained."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


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
    centres = cell_centres(side, side, logits.device).reshape(-1, 2)[index]
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
    there = other_half(logits).flatten(1, 2).unflatten(-1, (anchors_per_side, -1))
    on_tokens = F.interpolate(there, shape, mode="bilinear", align_corners=False)  # (2B, there, h, w)
    back = on_tokens.flatten(2).transpose(1, 2).unflatten(-1, shape)  # (2B, here, h, w)
    on_anchors = F.interpolate(back, (anchors_per_side,) * 2, mode="bilinear", align_corners=False)
    return on_anchors.flatten(2).unflatten(1, shape)
