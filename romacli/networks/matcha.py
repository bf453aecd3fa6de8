"""MATCHA's fusion network, read top-down: the network, its blocks, and merging several descriptors into one.

Source: Xue et al., MATCHA: Towards Matching Anything (arXiv 2501.14945). Apparent slips reproduce how the published
weights were trained. Operates on tensors only; the input feature maps are computed elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones.dinov2 import MLP, Attention, PatchEmbedding
from .parts.attention import attention
from .parts.folding import fold_batchnorm
from .parts.maps import resized
from .parts.pointwise import Linear, PointwiseConv2d
from .tiny_roma import Layer
from .weights import load_strictly

PATCH = 2  # side of a token, in cells of the geometric map
NORM_EPS = 1e-6
# Prefixes of heads used only by the losses.
TRAINING_ONLY = ("keypoint_encoder.", "keypoint_head.", "heatmap_head.", "fine_matcher.", "corr_model.")


@dataclass(frozen=True)
class FusionConfig:
    """Sizes; the defaults are those of the published network with Stable Diffusion 2.1's features.

    semantic_in, geometric_in, semantic_out, geometric_out: channels of the input and output maps.
    """

    semantic_in: int = 1280
    geometric_in: int = 640
    semantic_out: int = 768
    geometric_out: int = 256
    width: int = 512
    blocks: int = 8
    heads: int = 8
    head_width: int = 1024


class Fusion(nn.Module):
    """Fuses a semantic and a geometric feature map of one image; each output map uses both.

    Independent of other images. No position encoding: the features contain position.
    """

    def __init__(self, config: FusionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FusionConfig()
        self.patch_embed_c = PatchEmbedding(PATCH, config.width, channels=config.semantic_in)
        self.patch_embed_f = PatchEmbedding(PATCH, config.width, channels=config.geometric_in)
        self.dec_blocks = nn.ModuleList(FusionBlock(config.width, config.heads) for _ in range(config.blocks))
        self.dec_norm_c = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.dec_norm_f = nn.LayerNorm(config.width, eps=NORM_EPS)
        attended = config.width // PATCH**2
        self.fusion_c = head(config.semantic_in + attended, config.head_width, config.semantic_out)
        self.fusion_f = head(config.geometric_in + attended, config.head_width, config.geometric_out)

    @classmethod
    def from_checkpoint(
        cls, state_dict: Mapping[str, Tensor], *, config: FusionConfig | None = None, fold: bool = True
    ) -> Fusion:
        """Build a network ready for inference, with the weights of a published file.

        Args:
            state_dict: as published, with or without the training-only heads and the prefix "module.";
                float tensors of any precision, used as float32.
            config: for networks of other sizes.
            fold: merge the batch normalisations into the preceding convolutions.

        Raises:
            WeightsError: a name is missing, unexpected or of another shape.
        """
        named = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
        with torch.device("meta"):
            net = cls(config)
        used = {name: tensor for name, tensor in named.items() if not name.startswith(TRAINING_ONLY)}
        load_strictly(net, used, str, what="MATCHA")
        if fold:
            fold_batchnorm(net)
        return net

    def forward(self, c: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """Fused maps, both on the grid of the geometric one.

        Args:
            c: (B, semantic_in, any, any) semantic features from the diffusion network.
            f: (B, geometric_in, h, w) geometric features; h and w even.

        Returns:
            F_s: (B, semantic_out, h, w) of unit length over channels.
            F_g: (B, geometric_out, h, w), not normalised, as the geometric losses use it.

        Raises:
            ValueError: h or w is odd.
        """
        height, width = f.shape[-2:]
        if height % PATCH or width % PATCH:
            raise ValueError(f"geometric features are {tuple(f.shape)}, their sides must be even")
        c = resized(c, (height, width))
        x, y = self.patch_embed_f(f), self.patch_embed_c(c)  # (B, h w / 4, width)
        for block in self.dec_blocks:
            x, y = block(x, y)
        grid = height // PATCH, width // PATCH
        attended_f, attended_c = spread(self.dec_norm_f(x), grid), spread(self.dec_norm_c(y), grid)
        F_s = self.fusion_c(torch.cat([c, attended_c], dim=1))
        F_g = self.fusion_f(torch.cat([f, attended_f], dim=1))
        return F.normalize(F_s, dim=1), F_g


def spread(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens (B, N, C) of a grid as a map (B, C / 4, 2 rows, 2 columns): each token contains four cells."""
    return F.pixel_shuffle(x.transpose(1, 2).unflatten(2, grid), PATCH)


def head(in_channels: int, width: int, out_channels: int) -> nn.Sequential:
    """A head from the input map concatenated with the attended one to one fused map."""
    return nn.Sequential(Layer(in_channels, width), Layer(width, width), PointwiseConv2d(width, out_channels))


class FusionBlock(nn.Module):
    """Two branches with self-attention and cross-attention; x is the geometric one, y the semantic.

    Cross-attention reads the other branch's normalised input, not its updated tokens, so the branches are computed
    in parallel.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.normx1, self.normx2, self.normx3 = (nn.LayerNorm(width, eps=NORM_EPS) for _ in range(3))
        self.normy1, self.normy2, self.normy3 = (nn.LayerNorm(width, eps=NORM_EPS) for _ in range(3))
        self.attnx, self.attny = (Attention(width, heads, qkv_bias=True) for _ in range(2))
        self.cross_attnx, self.cross_attny = (CrossAttention(width, heads) for _ in range(2))
        self.mlpx, self.mlpy = MLP(width), MLP(width)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Update both branches' tokens (B, N, width)."""
        normed_x, normed_y = self.normx1(x), self.normy1(y)
        x = x + self.attnx(normed_x)
        y = y + self.attny(normed_y)
        x = x + self.cross_attnx(self.normx2(x), normed_y)
        y = y + self.cross_attny(self.normy2(y), normed_x)
        return x + self.mlpx(self.normx3(x)), y + self.mlpy(self.normy3(y))


class CrossAttention(nn.Module):
    """Multi-head attention from one sequence to another."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq, self.projk, self.projv, self.proj = (Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.projq(x), self.projk(other), self.projv(other))
        )  # each (B, heads, N, D)
        return self.proj(attention(q, k, v).transpose(1, 2).flatten(2))


def merge(F_g: Tensor, F_s: Tensor, dino: Tensor, *, semantic: bool) -> Tensor:
    """Merge the fused maps and DINOv2's into one descriptor map of unit length.

    Args:
        F_g, F_s: (B, C, h, w) from `Fusion`; normalised or not.
        dino: (B, C, any, any) DINOv2's patch features.
        semantic: for semantic matching, 1280 channels with the published network; otherwise geometric and temporal,
            1024.
    """
    F_g, F_s, dino = (F.normalize(maps, dim=1) for maps in (F_g, F_s, dino))
    first, last = (dino, F_s) if semantic else (F_s, dino)
    return extended(extended(F_g, first), last)


def extended(maps: Tensor, other: Tensor) -> Tensor:
    """Append every n-th channel of others (B, D, any, any), n = D // C, to maps (B, C, h, w); unit length.

    The channel stride determines each part's weight in dot products of descriptors. Others with fewer channels, which
    the paper's rule does not cover, are used whole.
    """
    if maps.shape[-2:] != other.shape[-2:]:
        other = F.normalize(resized(other, maps.shape[-2:]), dim=1)
    every = max(1, other.shape[1] // maps.shape[1])
    return F.normalize(torch.cat([maps, other[:, ::every]], dim=1), dim=1)


def sampled(maps: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """Unit descriptors (N, C) of a map (1, C, h, w) at normalised points (N, 2) of an image of size (width, height).

    The map's outermost cells are aligned with the centres of the image's outermost pixels, as in the published
    evaluation; points outside the image read zeros.
    """
    stretch = places.new_tensor([side / (side - 1) for side in size])
    read = F.grid_sample(maps.float(), (places * stretch).float()[None, None], align_corners=True)
    return F.normalize(read[0, :, 0].T, dim=1)


def soft_targets(queries: Tensor, maps: Tensor, *, reach: int = 7, temperature: float = 0.02) -> Tensor:
    """Sub-cell positions of queries in maps of unit descriptors.

    A softmax-weighted mean of cells near the best one. Cells further than `reach` from it are not excluded but get
    similarity 0, as in the published results: the weaker the best match, the more they pull the mean towards the
    middle.

    Args:
        queries: (N, C). maps: (C, h, w).

    Returns:
        (N, 2) column and row, inside the grid.
    """
    height, width = maps.shape[-2:]
    similarity = queries @ maps.flatten(1)
    best = similarity.argmax(dim=1, keepdim=True)
    rows = torch.arange(height, device=maps.device).repeat_interleave(width)
    columns = torch.arange(width, device=maps.device).repeat(height)
    near = ((columns - best % width).abs() <= reach) & ((rows - best // width).abs() <= reach)
    weights = (similarity * near / temperature).softmax(dim=1)
    places = torch.stack([columns, rows], dim=1).to(weights.dtype)
    return (weights @ places).clamp(places.new_zeros(2), places[-1])
