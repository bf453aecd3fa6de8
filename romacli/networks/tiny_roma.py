"""Tiny RoMa, read top-down: the network, its two matchers and XFeat, its small backbone.

Source: the RoMa authors' small model (after Edstedt et al., arXiv 2305.15404), and Potje et al., XFeat: Accelerated
Features for Lightweight Image Matching (arXiv 2404.19174). Apparent slips reproduce how the published weights were
trained or are run. Operates on tensors only.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .parts.float32 import without_autocast
from .parts.folding import fold_batchnorm
from .parts.maps import pixel_grid, resized, sample, tokens
from .parts.output import NetworkMatch, Unfinished
from .parts.pointwise import PointwiseConv2d
from .parts.pooling import generalized_mean
from .weights import load_strictly

FeatureMaps = Mapping[str, Tensor]

STRIDE = 32  # of the deepest features; images are resized to multiples of it
BACKBONE = "xfeat.0."  # the backbone's prefix in the published checkpoint; other names are equal
DESCRIPTOR_POWER = 3.0
PLACES_AT_ONCE = 256


class TinyRoMa(nn.Module):
    """Dense matching of two images by small convolutions only, with per-image and per-pair work separated.

    `encode` computes all that depends on one image, `match` (`start`, `refine`, `result`) what depends on both.
    """

    def __init__(self, *, exact_softmax: bool = False) -> None:
        """exact_softmax: coarse targets are the mean over all of B, not roughly the best match (`best_target`)."""
        super().__init__()
        self.exact_softmax = exact_softmax
        self.xfeat = XFeat()
        self.coarse_matcher = matcher(2 * 64 + 2, 256)
        self.fine_matcher = matcher(2 * 24 + 2, 64)

    @classmethod
    def from_checkpoint(
        cls, state_dict: Mapping[str, Tensor], *, exact_softmax: bool = False, fold: bool = True
    ) -> TinyRoMa:
        """Build a network ready for inference, with the weights of a published file.

        Args:
            state_dict: as published; float tensors of any precision, used as float32.
            exact_softmax: see above; the authors' default is False.
            fold: merge the batch normalisations into the preceding convolutions.

        Raises:
            WeightsError: a name is missing, unexpected or of another shape.
        """
        with torch.device("meta"):
            net = cls(exact_softmax=exact_softmax)
        load_strictly(net, state_dict, checkpoint_name, what="Tiny RoMa")
        if fold:
            fold_batchnorm(net)
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        """Compute all that depends on one image alone, to be reused for every pair of the image.

        Args:
            image: (B, 3, H, W) in [0, 1]; sides are reduced to multiples of 32.

        Returns:
            Tensors with the batch in dim 0: `coarse` (B, 64, h / 8, w / 8), `fine` (B, 24, h / 4, w / 4) and the
            `shape` (B, 2) of the image, H and W.
        """
        shape = tuple(image.shape[-2:])
        if min(shape) < STRIDE:
            raise ValueError(f"image is {tuple(image.shape)}, its sides must be at least {STRIDE}")
        image = resized(image, [side // STRIDE * STRIDE for side in shape])
        fine, coarse = self.xfeat(image.to(memory_format=torch.channels_last))
        return {"coarse": coarse, "fine": fine, "shape": torch.tensor(shape).expand(len(image), 2)}

    def encode_coarse(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the inputs of `start` for (B, 3, H, W) images."""
        return self.encode(image)

    def descriptor(self, image: Tensor) -> Tensor:
        """Compute a global descriptor (B, D) of unit length of each of (B, 3, H, W) images."""
        return generalized_mean(self.encode(image)["coarse"], DESCRIPTOR_POWER)

    def match(self, features_A: FeatureMaps, features_B: FeatureMaps, *, symmetric: bool = False) -> NetworkMatch:
        """Compute the warps of encoded pairs from A to B and, if symmetric, from B to A.

        Args:
            features_A, features_B: from `encode`; row i of both is pair i. If symmetric, their sizes must be
                equal.

        Returns:
            Warps and certainties at the size of the source image. Targets outside the other image are not clamped.
        """
        started = self.start(features_A, features_B, symmetric=symmetric)
        return self.result(self.refine(started, features_A, features_B))

    def start(self, features_A: FeatureMaps, features_B: FeatureMaps, *, symmetric: bool = True) -> Unfinished:
        """Warps and certainties at stride 8.

        The tensors are `flow` (2B or B, 2, h, w), normalised x, y in the other image, `certainty` (2B or B, 1, h, w),
        logits, and `shape` (2B or B, 2) of the source images.
        """
        a, b, shape = features_A["coarse"], features_B["coarse"], features_A["shape"]
        if symmetric and (a.shape != b.shape or not torch.equal(shape, features_B["shape"])):
            raise ValueError(f"images A and B were encoded at different sizes: {a.shape}, {b.shape}")
        warp = self._coarse_warp(a, b)
        if symmetric:
            warp = torch.cat([warp, self._coarse_warp(b, a)])
            a, b, shape = torch.cat([a, b]), torch.cat([b, a]), torch.cat([shape, features_B["shape"]])
        flow, certainty = self._corrected(self.coarse_matcher, a, b, warp, torch.zeros_like(warp[:, :1]), stride=8)
        return Unfinished({"flow": flow, "certainty": certainty, "shape": shape}, 2 if symmetric else 1)

    def refine(
        self, state: Unfinished, features_A: FeatureMaps, features_B: FeatureMaps, *, down_to: int | None = None
    ) -> Unfinished:
        """Correct pairs at stride 4, unless `down_to` stops before it."""
        if state.steps or (down_to is not None and down_to > 4):
            return state
        a, b = features_A["fine"], features_B["fine"]
        if state.directions == 2:
            a, b = torch.cat([a, b]), torch.cat([b, a])
        flow, certainty = (resized(state.tensors[name], a.shape[-2:]) for name in ("flow", "certainty"))
        flow, certainty = self._corrected(self.fine_matcher, a, b, flow, certainty, stride=4)
        return Unfinished({**state.tensors, "flow": flow, "certainty": certainty}, state.directions, steps=1)

    def result(self, state: Unfinished) -> NetworkMatch:
        """The current warps of the pairs, at the size of the source images."""
        height, width = state.tensors["shape"][0].tolist()
        flow, certainty = (resized(state.tensors[name], (height, width)) for name in ("flow", "certainty"))
        warp, probability = flow.permute(0, 2, 3, 1).contiguous(), certainty.sigmoid().squeeze(1)
        if state.directions == 1:
            return NetworkMatch(warp, probability)
        (warp_AB, warp_BA), (probability_AB, probability_BA) = warp.chunk(2), probability.chunk(2)
        return NetworkMatch(warp_AB, probability_AB, warp_BA, probability_BA)

    def _coarse_warp(self, a: Tensor, b: Tensor) -> Tensor:
        """Targets (B, 2, h, w) of A's cells, in chunks so that their correlations fit a CPU's cache."""
        find = mean_target if self.exact_softmax else best_target
        with without_autocast(a):
            places = tokens(a).float() * a.shape[1] ** -0.5
            parts = places.split(PLACES_AT_ONCE if a.device.type == "cpu" else places.shape[1], dim=1)
            warp = torch.cat([find(part @ b.float().flatten(2), b) for part in parts], dim=1)
        return warp.transpose(1, 2).unflatten(2, tuple(a.shape[-2:]))

    def _corrected(
        self, module: nn.Module, a: Tensor, b: Tensor, flow: Tensor, certainty: Tensor, *, stride: int
    ) -> tuple[Tensor, Tensor]:
        """Flow and certainty corrected by a matcher that compares A's features with B's at the targets.

        One output unit moves a target by one pixel of B.
        """
        delta = module(torch.cat([a, sample(b, flow), flow], dim=1)).float()
        height, width = (stride * side for side in b.shape[-2:])
        step = 2 / flow.new_tensor([width, height])[:, None, None]
        return flow + delta[:, :2] * step, certainty + delta[:, 2:]


def mean_target(correlation: Tensor, b: Tensor) -> Tensor:
    """The mean position in B (B, N, 2), weighted by the softmax of correlations (B, N, M) over all of B."""
    return correlation.softmax(dim=2) @ tokens(pixel_grid(b))


def best_target(correlation: Tensor, b: Tensor) -> Tensor:
    """Roughly the best position in B (B, N, 2), as in the released model.

    A softmax over every fourth row and column of B, each representing a 4x4 cell, and over the best position, whose
    logit is its row-major index instead of its correlation. It nearly always outweighs the rest.
    """
    best = correlation.max(dim=2, keepdim=True).indices  # on a CPU faster than argmax
    sparse = correlation.unflatten(2, tuple(b.shape[-2:]))[:, :, ::4, ::4].flatten(2)
    weights = torch.cat([sparse, best.to(sparse.dtype)], dim=2).softmax(dim=2)
    cells = tokens(pixel_grid(b[:, :, ::4, ::4]))
    places = tokens(pixel_grid(b))[0][best.squeeze(2)]
    return weights[:, :, :-1] @ cells + weights[:, :, -1:] * places


class XFeat(nn.Module):
    """XFeat's backbone without its heads, with the published parameter names.

    Source: XFeat, section 3.1. Gray images to features at strides 4 and 8.
    """

    def __init__(self) -> None:
        super().__init__()
        self.skip1 = nn.Sequential(nn.AvgPool2d(4), PointwiseConv2d(1, 24))
        self.block1 = nn.Sequential(Layer(1, 4), Layer(4, 8, stride=2), Layer(8, 8), Layer(8, 24, stride=2))
        self.block2 = nn.Sequential(Layer(24, 24), Layer(24, 24))
        self.block3 = nn.Sequential(Layer(24, 64, stride=2), Layer(64, 64), Layer(64, 64, size=1))
        self.block4 = nn.Sequential(Layer(64, 64, stride=2), Layer(64, 64), Layer(64, 64))
        self.block5 = nn.Sequential(Layer(64, 128, stride=2), Layer(128, 128), Layer(128, 128), Layer(128, 64, size=1))
        self.block_fusion = nn.Sequential(Layer(64, 64), Layer(64, 64), PointwiseConv2d(64, 64))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Fine (B, 24, H / 4, W / 4) and coarse (B, 64, H / 8, W / 8) features of (B, 3, H, W) images at any scale."""
        gray = F.instance_norm(image.mean(dim=1, keepdim=True))
        fine = self.block2(self.block1(gray) + self.skip1(gray))
        x3 = self.block3(fine)
        x4 = self.block4(x3)
        x5 = self.block5(x4)
        coarse = self.block_fusion(x3 + resized(x4, x3.shape[-2:]) + resized(x5, x3.shape[-2:]))
        return fine, coarse


class Layer(nn.Module):
    """A convolution, batch normalisation without learned scale, and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=size // 2, bias=False)
        self.layer = nn.Sequential(conv, nn.BatchNorm2d(out_channels, affine=False), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def matcher(in_channels: int, width: int) -> nn.Sequential:
    """Layers from concatenated features and flow to corrections of x, y and certainty."""
    return nn.Sequential(Layer(in_channels, width), *(Layer(width, width) for _ in range(3)), PointwiseConv2d(width, 3))


def checkpoint_name(name: str) -> str:
    """The name in the published file of a tensor of this network."""
    return BACKBONE + name.removeprefix("xfeat.") if name.startswith("xfeat.") else name
