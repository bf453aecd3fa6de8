"""Warps refined level by level over a pyramid of features: what RoMa, RoMa v2 and DKM have in common.

Source: DKM (arXiv 2202.00667), whose refinement the later networks keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .maps import compared_at_once, resized
from .output import NetworkMatch, Unfinished
from .pointwise import PointwiseConv2d

FeatureMaps = Mapping[str, Tensor]


@dataclass(frozen=True)
class Level:
    """One level of the pyramid.

    Attributes:
        stride: in pixels; at the coarsest level it is the patch size, 14, though named and treated as 16.
        in_channels: of the encoder's features.
        channels: of the projected features.
        displacement_channels: of the refiner's displacement embedding.
        correlation_radius: of the refiner's window, None for a refiner without a correlation.
    """

    stride: int
    in_channels: int
    channels: int
    displacement_channels: int
    correlation_radius: int | None = None


@dataclass(frozen=True)
class Stage:
    """The input and output of one refiner.

    Attributes:
        stride: of its level.
        start, flow: (B, 2, h, w) float32, normalised x, y in the other image, before and after.
        certainty: (B, 1, h, w) float32, logits; of RoMa v2 (B, 4, h, w), with three entries of the precision.
    """

    stride: int
    start: Tensor
    flow: Tensor
    certainty: Tensor


class PyramidMatcher(nn.Module):
    """Coarse warps, refined level by level.

    Attributes:
        levels: of the refiners, coarsest first. refiners: by stride.
    """

    levels: tuple[Level, ...]
    refiners: nn.ModuleDict

    def match(self, features_A: FeatureMaps, features_B: FeatureMaps, *, symmetric: bool = True) -> NetworkMatch:
        """Compute the warps of encoded pairs from A to B and, if symmetric, from B to A.

        Args:
            features_A, features_B: from `encode`, at equal sizes; row i of both is pair i. The second pass runs
                if both contain its features.

        Returns:
            Warps and certainties at the size of the last pass.
        """
        started = self.start(features_A, features_B, symmetric=symmetric)
        return self.result(self.refine(started, features_A, features_B))

    def start(self, features_A: FeatureMaps, features_B: FeatureMaps, *, symmetric: bool = True) -> Unfinished:
        """Compute coarse warps from the features of `encode_coarse`."""
        raise NotImplementedError

    def refine(
        self, state: Unfinished, features_A: FeatureMaps, features_B: FeatureMaps, *, down_to: int | None = None
    ) -> Unfinished:
        """Refine pairs at all levels, then at stride 8 and below in a second pass.

        Args:
            state: from `start`, or from an earlier call with `down_to`.
            features_A, features_B: from `encode`.
            down_to: stop in the first pass after the level of this stride.
        """
        flow, certainty, coarsest = (state.tensors[name] for name in ("flow", "certainty", "coarsest_certainty"))
        steps = self._steps(features_A, features_B, down_to)[state.steps :]
        for step in steps:
            stage = self._stage(step, flow, certainty, features_A, features_B, symmetric=state.directions == 2)
            flow, certainty = stage.flow, stage.certainty
            if stage.stride == self.levels[0].stride:
                coarsest = certainty
        return Unfinished(tensors_of(flow, certainty, coarsest), state.directions, state.steps + len(steps))

    def result(self, state: Unfinished) -> NetworkMatch:
        """The current warps of the pairs."""
        warp, probability = finish(**state.tensors)
        if state.directions == 1:
            return NetworkMatch(warp, probability)
        (warp_AB, warp_BA), (probability_AB, probability_BA) = warp.chunk(2), probability.chunk(2)
        return NetworkMatch(warp_AB, probability_AB, warp_BA, probability_BA)

    def _steps(
        self, features_A: FeatureMaps, features_B: FeatureMaps, down_to: int | None = None
    ) -> list[tuple[str, Level]]:
        """The refiners in order: which image size they read, and their level; down_to: as in `refine`."""
        if down_to is not None:
            return [("coarse", level) for level in self.levels if level.stride >= down_to]
        keys = features_A.keys() & features_B.keys()
        second_pass = [("fine", level) for level in self.levels if f"fine_{level.stride}" in keys]
        return [("coarse", level) for level in self.levels] + second_pass

    def _stage(
        self,
        step: tuple[str, Level],
        flow: Tensor,
        certainty: Tensor,
        features_A: FeatureMaps,
        features_B: FeatureMaps,
        *,
        symmetric: bool,
    ) -> Stage:
        """Refine at one level, from the detached result of the previous one."""
        image, level = step
        key = f"{image}_{level.stride}"
        refiner, ends = self.refiners[str(level.stride)], (features_A[key], features_B[key])
        shape, image_shape = ends[0].shape[-2:], features_A[f"{image}_1"].shape[-2:]
        start, certainty = resized(flow.detach(), shape), resized(certainty.detach(), shape)
        parts = compared_at_once((ends, ends[::-1]) if symmetric else (ends,), training=self.training)
        del ends  # keep only the joined maps in memory
        rows = len(start) // len(parts)
        given = zip(parts, start.split(rows), certainty.split(rows), strict=True)
        corrected = [refiner(*maps, *values, image_shape) for maps, *values in given]
        flow, certainty = (torch.cat(values) for values in zip(*corrected, strict=True))
        return Stage(level.stride, start, flow, certainty)


def refiner_block(width: int, *, reads: int | None = None) -> nn.Sequential:
    """A depthwise 5x5 convolution, batch normalisation and ReLU, then a pointwise convolution; no residual.

    reads: input channels, if not `width`; each then yields several outputs.
    """
    reads = reads or width
    return nn.Sequential(
        nn.Conv2d(reads, width, kernel_size=5, padding=2, groups=reads),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        PointwiseConv2d(width, width),
    )


def finish(flow: Tensor, certainty: Tensor, coarsest_certainty: Tensor) -> tuple[Tensor, Tensor]:
    """Warp and probability from the last flow and the logits of the last and the coarsest level.

    Where the coarsest level doubts a match, half of its (negative) logit is subtracted, as in the authors'
    code; a target outside the image gets probability 0 and is moved to the image's edge.

    Args:
        flow: (B, 2, H, W) normalised x, y.
        certainty: (B, 1, H, W) logits.
        coarsest_certainty: (B, 1, h, w) logits after the coarsest refiner.

    Returns:
        (B, H, W, 2) warp in [-1, 1] and (B, H, W) probability in [0, 1].
    """
    doubt = resized(coarsest_certainty, certainty.shape[-2:]).clamp(max=0)
    probability = (certainty - 0.5 * doubt).sigmoid().squeeze(1)
    probability = probability.masked_fill((flow.abs() > 1).any(dim=1), 0)
    return flow.clamp(-1, 1).permute(0, 2, 3, 1).contiguous(), probability


def tensors_of(flow: Tensor, certainty: Tensor, coarsest_certainty: Tensor) -> dict[str, Tensor]:
    """The tensors of an `Unfinished` from the arguments of `finish`."""
    return {"flow": flow, "certainty": certainty, "coarsest_certainty": coarsest_certainty}
