"""The small network included in the package: RoMa's design at a small fraction of its size, for CPUs.

Read top-down: the matcher, the trunk and the refiners; `mini_coarse` has the coarse stage between them. Operates on
tensors only. Source of the design: RoMa (arXiv 2305.15404), sections 3.1 to 3.3; each class states where it differs
and why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from romacli.errors import WeightsError

from .mini_coarse import (
    AcrossScales,
    AnchorDecoder,
    ContextBlock,
    MatchEncoder,
    across_scales,
    decode_anchors,
    mirrored_logits,
    other_direction,
)
from .mini_config import MiniConfig, config_from_json
from .parts.float32 import without_autocast
from .parts.folding import fold_batchnorm
from .parts.local_correlation import local_correlation
from .parts.maps import pixel_grid, sample
from .parts.output import NetworkMatch, Unfinished
from .parts.pointwise import PointwiseConv2d
from .parts.pooling import generalized_mean
from .parts.statistics import running_statistics
from .weights import read_weights

COARSE_STRIDE = 16
REFINED_STRIDES = (8, 4, 2)
DISPLACEMENT_GAIN = 4.0  # brings typical displacements, in normalised units, to the scale of the features
CORRELATION_GAIN = 3.0  # the same for cosines of descriptors
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LAYOUT = "romacli-mini-1"
DESCRIPTOR_POWER = 8.0
_TOKENS = ("tokens", "alpha")  # what the decoder reads of an image
_HALF = "half_"  # prefix of the same of the image at half its size
_MIRRORED = "mirrored_"  # prefix of both of the mirrored image
_OTHER_DIRECTION = 0.5  # weight of its logits; 0.25 and 1 were worse in the mean of three kinds of rendered pairs


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
    `correlation` (B, N_source, N_target) cosines of the tokens; `across` what is compared at two scales, if it is.
    """

    anchor_logits: Tensor
    correlation: Tensor
    stages: tuple[Stage, ...]
    across: AcrossScales | None = None


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
        encoded = self._all_tokens(coarse, pyramid) | self._describe("coarse", pyramid)
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
        """Return the inputs of `start` for (B, 3, Hc, Wc) images."""
        return self._all_tokens(coarse, self.trunk(coarse))

    def descriptor(self, coarse: Tensor) -> Tensor:
        """Return a global descriptor (B, D) of unit length of each of (B, 3, Hc, Wc) images.

        It pools the trunk at strides 8 and 16: on rendered walks it found more true overlaps than either level alone,
        lower powers, or the tokens used for matching.
        """
        pyramid = self.pyramid(coarse)
        pooled = [generalized_mean(pyramid[stride], DESCRIPTOR_POWER) for stride in (COARSE_STRIDE, 8)]
        return F.normalize(torch.cat(pooled, dim=1), dim=1)

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

    def _all_tokens(self, coarse: Tensor, pyramid: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """Return all that `start` reads of images and their features: also those of the images mirrored and halved."""
        encoded, looks = self.encode_tokens(pyramid), {"": coarse}
        if self.looks_mirrored:
            looks[_MIRRORED] = coarse.flip(-1)
            encoded |= _prefixed(_MIRRORED, self.encode_tokens(self.trunk(looks[_MIRRORED])))
        if self.config.scales > 1:
            with running_statistics(self.trunk):
                maps = self.trunk(halved(torch.cat(list(looks.values()))))
            for name, halves in self.encode_tokens(maps).items():
                encoded |= {
                    look + _HALF + name: half for look, half in zip(looks, halves.chunk(len(looks)), strict=True)
                }
        return encoded

    @property
    def looks_mirrored(self) -> bool:
        """Whether the decoder looks at mirrored images, too."""
        return self.config.ensemble and self.config.classifies and not self.training

    def finer_parts(self) -> tuple[nn.Module, ...]:
        """Return the parts that the refiners read or are: the trunk down to stride 8, or their own, and themselves."""
        fine = self.fine_trunk or nn.ModuleList((self.trunk.stem, *self.trunk.levels[:-1]))
        return (fine, self.refiners)

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
        both = _both_ways(
            encoded_A, encoded_B, [k for k in encoded_A if k.removeprefix(_MIRRORED).removeprefix(_HALF) in _TOKENS]
        )
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
        return replace(first, stages=tuple(stages))

    def _decode(self, source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> MiniTrace:
        """Return the first stage, from tokens and the Gaussian process's solution only; see `trace`.

        In an ensemble, the images mirrored and the other direction add to it what they say of the same anchors.
        """
        logits, certainty, correlation, across = self._look(source, target)
        side = self.config.anchors_per_side
        if self.looks_mirrored:
            mirrored = (_with_prefix(encoded, _MIRRORED) for encoded in (source, target))
            other_logits, other_certainty, *_ = self._look(*mirrored)
            logits = (logits + mirrored_logits(other_logits, side)) / 2
            logits = logits + _OTHER_DIRECTION * other_direction(logits, side)
            certainty = (certainty + other_certainty.flip(2)) / 2
        warp = logits.detach()
        if self.config.classifies:
            warp = decode_anchors(warp, side)
        return MiniTrace(logits, correlation, (Stage(warp, warp, certainty),), across)

    def _look(
        self, source: Mapping[str, Tensor], target: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, AcrossScales | None]:
        """Return the decoder's logits (B, h, w, anchors) and certainty logits (B, h, w), and what it compared."""
        shape_source, shape_target = source["tokens"].shape[1:3], target["tokens"].shape[1:3]
        with without_autocast(source["tokens"]):
            first, second = source["tokens"].flatten(1, 2).chunk(2)
            forward = first @ second.transpose(1, 2)
            correlation = torch.cat((forward, forward.transpose(1, 2)))
            posterior = self.match_encoder(correlation, target["alpha"].flatten(1, 2))
            halves = [_with_prefix(encoded, _HALF) for encoded in (source, target)]
            across = across_scales(self.match_encoder, source, target, *halves) if all(halves) else None
            coordinates = tuple(self.match_encoder.coordinates(*shape) for shape in (shape_source, shape_target))
        logits, certainty = self.decoder(
            source["tokens"].flatten(1, 2),
            target["tokens"].flatten(1, 2),
            posterior,
            correlation,
            across,
            coordinates=coordinates,
            shapes=(shape_source, shape_target),
        )
        return logits.unflatten(1, shape_source), certainty.unflatten(1, shape_source), correlation, across

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


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


def normalised_gray(image: Tensor) -> Tensor:
    """Turn ImageNet-normalised RGB (B, 3, H, W) into gray (B, 1, H, W) with mean 0 and deviation about 1."""
    mean = torch.tensor(IMAGENET_MEAN, device=image.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=image.device).view(1, 3, 1, 1)
    gray = (image.float() * std + mean).mean(dim=1, keepdim=True)
    centred = gray - gray.mean(dim=(2, 3), keepdim=True)
    return centred / (centred.square().mean(dim=(2, 3), keepdim=True).sqrt() + 0.016)


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
        displacement = flow - pixel_grid(flow)
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


def convolution(channels_in: int, channels_out: int, *, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Return convolution, batch norm and ReLU, the building block of trunk and refiners."""
    if kernel == 1:
        layer: nn.Conv2d = PointwiseConv2d(channels_in, channels_out, bias=False)
    else:
        layer = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


def halved(image: Tensor) -> Tensor:
    """Return images (B, C, H, W) at half their size, rounded to whole tokens."""
    sides = [max(1, round(int(side) / 2 / COARSE_STRIDE)) * COARSE_STRIDE for side in image.shape[2:]]
    return F.interpolate(image, sides, mode="area")


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


def _prefixed(prefix: str, encoded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in encoded.items()}


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
    network = read_mini(path).eval()
    fold_batchnorm(network)
    return network


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
    """Return the network with the context blocks, crossings, exchanges and scales of `config` that it lacks.

    They change nothing until trained. A network that has all, or whose decoder is convolutional, is returned as it is.
    """
    own = network.config
    grown = replace(
        own,
        context_blocks=own.context_blocks or config.context_blocks,
        crossings=own.crossings or min(config.crossings, own.decoder_blocks),
        crossing_width=own.crossing_width if own.crossings else config.crossing_width,
        exchanges=own.exchanges or config.exchanges,
        scales=max(own.scales, config.scales),
    )
    if grown == own or not own.transformer:
        return network
    larger = Mini(grown)
    larger.load_state_dict(network.state_dict(), strict=False)
    return larger


def weights_of(network: Mini) -> dict[str, Tensor]:
    """Return the tensors stored in a weight file: all but batch norm's step counters, which inference ignores."""
    state = network.state_dict()
    return {key: state[key].contiguous() for key in state if not key.endswith("num_batches_tracked")}
