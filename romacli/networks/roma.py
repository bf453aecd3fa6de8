"""RoMa, read top-down: the network, its Gaussian process, the transformer decoder and the refiners.

Source: Edstedt et al., RoMa: Robust Dense Feature Matching (arXiv 2305.15404). Where the published weights were trained
differently from the paper, the code follows the weights. Operates on tensors only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from .backbones.dinov2 import DINOv2, DINOv2Config, TransformerBlock
from .backbones.vgg import VGG19
from .output import NetworkMatch, Unfinished
from .parts.folding import fold_batchnorm
from .parts.local_correlation import local_correlation
from .parts.maps import compared_at_once, pixel_grid, resized, sample, tokens
from .parts.pointwise import Linear, PointwiseConv2d
from .parts.pooling import generalized_mean
from .parts.residual import ResidualBlock, ResNet50
from .parts.solve import solve_positive_definite
from .weights import published_name, require_layout, to_float32

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
class RoMaConfig:
    """Sizes of the network; the defaults are those of the published weights, coarsest level first.

    Attributes:
        coarse_encoder: for the coarsest level: dinov2 or resnet50.
        fine_encoder: for the others: vgg19, resnet50 (a separate one), or shared (the coarse encoder's ResNet-50).
        transformer: the decoder attends to all tokens; otherwise it is convolutional like DKM's, at one stride.
        classifies: the decoder outputs anchor logits; otherwise coordinates, like DKM's.
    """

    dinov2: DINOv2Config = field(default_factory=DINOv2Config)
    levels: tuple[Level, ...] = (
        Level(16, 1024, 512, 128, 7),
        Level(8, 512, 512, 64, 3),
        Level(4, 256, 256, 32, 2),
        Level(2, 128, 64, 16),
        Level(1, 64, 9, 6),
    )
    basis_channels: int = 512
    decoder_depth: int = 5
    decoder_heads: int = 8
    anchors_per_side: int = 64
    refiner_blocks: int = 9
    coarse_encoder: str = "dinov2"
    fine_encoder: str = "vgg19"
    transformer: bool = True
    classifies: bool = True

    def varied(self, *, coarse_encoder: str, fine_encoder: str, transformer: bool, classifies: bool) -> RoMaConfig:
        """The same with other components, as in the paper's table 2; `in_channels` follow the encoders."""
        encoders = [coarse_encoder, *([fine_encoder] * (len(self.levels) - 1))]
        levels = tuple(
            level if encoder in ("dinov2", "vgg19") else replace(level, in_channels=RESNET_CHANNELS[level.stride])
            for level, encoder in zip(self.levels, encoders, strict=True)
        )
        return replace(
            self,
            levels=levels,
            coarse_encoder=coarse_encoder,
            fine_encoder=fine_encoder,
            transformer=transformer,
            classifies=classifies,
        )

    @property
    def variation(self) -> dict[str, Any]:
        """The arguments of `varied` that yield this configuration."""
        return {name: getattr(self, name) for name in ("coarse_encoder", "fine_encoder", "transformer", "classifies")}


PUBLISHED = RoMaConfig()
RESNET_CHANNELS = {16: 1024, 8: 512, 4: 256, 2: 64, 1: 3}
FINE_ENCODERS = {"vgg19": "vgg", "resnet50": "fine_resnet", "shared": "resnet"}  # and the attributes of RoMa
CONVOLUTIONS_WIDTH = 384  # of the decoder without attention; as in DKM
# Prefixes of module names in the published checkpoint, and in this code.
CHECKPOINT_PREFIXES = {
    "encoder.cnn.": "vgg.",
    "encoder.net.": "resnet.",
    "encoder.fine_net.": "fine_resnet.",
    "decoder.embedding_decoder.": "decoder.",
    "decoder.gps.16.": "gaussian_process.",
    "decoder.proj.": "projections.",
    "decoder.conv_refiner.": "refiners.",
}
DINOV2_PREFIX = "dinov2."
DESCRIPTOR_POWER = 3.0


@dataclass(frozen=True)
class Stage:
    """The input and output of one refiner.

    Attributes:
        stride: of its level.
        start, flow: (B, 2, h, w) float32, normalised x, y in the other image, before and after.
        certainty: (B, 1, h, w) float32, logits.
    """

    stride: int
    start: Tensor
    flow: Tensor
    certainty: Tensor


@dataclass(frozen=True)
class Trace:
    """All stages of a batch of pairs, for the losses.

    Attributes:
        anchor_logits: (B, anchors, h, w) float32, or (B, 2, h, w) coordinates if the network does not classify.
        certainty: (B, 1, h, w) float32, the decoder's logits.
        stages: of the refiners, in order.
    """

    anchor_logits: Tensor
    certainty: Tensor
    stages: tuple[Stage, ...]


class PyramidMatcher(nn.Module):
    """Coarse warps, refined level by level: what RoMa and DKM have in common.

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
        steps = self._steps(features_A, features_B)
        if down_to is not None:
            steps = [(image, level) for image, level in steps if image == "coarse" and level.stride >= down_to]
        flow, certainty, coarsest = (state.tensors[name] for name in ("flow", "certainty", "coarsest_certainty"))
        left, symmetric = steps[state.steps :], state.directions == 2
        for stage in self._stages(flow, certainty, features_A, features_B, left, symmetric=symmetric):
            flow, certainty = stage.flow, stage.certainty
            if stage.stride == self.levels[0].stride:
                coarsest = certainty
        return Unfinished(tensors_of(flow, certainty, coarsest), state.directions, state.steps + len(left))

    def result(self, state: Unfinished) -> NetworkMatch:
        """The current warps of the pairs."""
        return finished(state)

    def _stages(
        self,
        flow: Tensor,
        certainty: Tensor,
        features_A: FeatureMaps,
        features_B: FeatureMaps,
        steps: Sequence[tuple[str, Level]],
        *,
        symmetric: bool,
    ) -> Iterator[Stage]:
        """Refine level by level, each starting from the detached result of the previous one."""
        for image, level in steps:
            key = f"{image}_{level.stride}"
            refiner, ends = self.refiners[str(level.stride)], (features_A[key], features_B[key])
            shape, image_shape = ends[0].shape[-2:], features_A[f"{image}_1"].shape[-2:]
            start, certainty = resized(flow.detach(), shape), resized(certainty.detach(), shape)
            parts = compared_at_once((ends, ends[::-1]) if symmetric else (ends,), training=self.training)
            del ends  # keep only the joined maps in memory
            rows = len(start) // len(parts)
            given = zip(parts, start.split(rows), certainty.split(rows), strict=True)
            corrected = [
                refiner(*maps, some_flow, some_certainty, image_shape) for maps, some_flow, some_certainty in given
            ]
            flow, certainty = (torch.cat(values) for values in zip(*corrected, strict=True))
            yield Stage(level.stride, start, flow, certainty)

    def _steps(self, features_A: FeatureMaps, features_B: FeatureMaps) -> list[tuple[str, Level]]:
        """The refiners in order: which image size they read, and their level."""
        steps = [("coarse", level) for level in self.levels]
        second_pass = "fine_1" in features_A and "fine_1" in features_B
        return steps + [("fine", level) for level in self.levels[1:]] if second_pass else steps


class RoMa(PyramidMatcher):
    """Dense matching of two images, with per-image and per-pair work separated.

    `encode` computes all that depends on one image, `match` (`start`, `refine`, `result`) what depends on both.
    `net.to(torch.bfloat16)` or `.half()` converts the convolutions and transformers. The parts that need more precision
    stay float32, also under autocast: the Gaussian process and the features it compares, the anchor logits, the outputs
    of the refiners, and all coordinates.
    """

    def __init__(self, config: RoMaConfig = PUBLISHED) -> None:
        super().__init__()
        coarsest, *finer = config.levels
        self.config, self.levels = config, config.levels
        if config.coarse_encoder == "dinov2":
            self.dinov2 = DINOv2(config.dinov2)
        else:
            self.resnet = ResNet50(deepest=16)
        if config.fine_encoder == "vgg19":
            self.vgg = VGG19([level.in_channels for level in reversed(finer)])
        elif config.fine_encoder == "resnet50":
            self.fine_resnet = ResNet50(deepest=8)
        self.projections = nn.ModuleDict({str(level.stride): projection(level) for level in config.levels})
        self.gaussian_process = GaussianProcess(config.basis_channels)
        width, answers = (
            config.basis_channels + coarsest.channels,
            config.anchors_per_side**2 if config.classifies else 2,
        )
        self.decoder: nn.Module = (
            Decoder(width, depth=config.decoder_depth, heads=config.decoder_heads, anchors=answers)
            if config.transformer
            else ConvolutionDecoder(width, answers)
        )
        self.refiners = nn.ModuleDict(
            {str(level.stride): Refiner(level, config.refiner_blocks) for level in config.levels}
        )

    @classmethod
    def from_checkpoints(
        cls,
        roma: Mapping[str, Tensor],
        dinov2: Mapping[str, Tensor],
        *,
        config: RoMaConfig = PUBLISHED,
        fold: bool = True,
    ) -> RoMa:
        """Build a network ready for inference, with the weights of RoMa's and DINOv2's published files.

        Args:
            roma, dinov2: state dicts as published; float tensors of any precision, used as float32.
            config: smaller sizes than the published ones, for networks in tests.
            fold: merge the batch normalisations into the preceding convolutions.

        Raises:
            WeightsError: a name is missing, unexpected or of another shape.
        """
        with torch.device("meta"):
            net = cls(config)
        roma_layout, dinov2_layout = checkpoint_layouts(net)
        require_layout(roma, roma_layout, what="RoMa")
        require_layout(dinov2, dinov2_layout, what="DINOv2")
        found = {**roma, **dinov2}
        state = {name: to_float32(found[checkpoint_name(name)]) for name in net.state_dict()}
        net.load_state_dict(state, strict=True, assign=True)
        net.eval().requires_grad_(False)
        if fold:
            fold_batchnorm(net)
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, coarse: Tensor, fine: Tensor | None = None) -> dict[str, Tensor]:
        """Compute all that depends on one image alone, to be reused for every pair of the image.

        Args:
            coarse: (B, 3, H, W) float32, ImageNet-normalised; H and W multiples of 14.
            fine: the same images, larger, for a second pass of refinement, or None for a single pass.

        Returns:
            Tensors with the batch in dim 0: projected features `coarse_16` ... `coarse_1` and, with a second
            pass, `fine_8` ... `fine_1`, each (B, C, h, w); and `alpha` (B, h * w, C) float32, the part of the Gaussian
            process's posterior that depends only on the target image.
        """
        patch = self.config.dinov2.patch if self.config.coarse_encoder == "dinov2" else 8
        if any(side % patch or not side for side in coarse.shape[-2:]):
            raise ValueError(f"coarse is {tuple(coarse.shape)}, its sides must be multiples of {patch}")
        if self.config.fine_encoder == "shared":
            maps = dict(self._encoder("resnet")(coarse))
            features = self._coarse_features(maps.pop(16)) | self._projected(maps.items(), "coarse")
        else:
            features = self._coarse_features(self._coarse_maps(coarse)) | self._fine_features(coarse, "coarse")
        if fine is not None:
            features |= self._fine_features(fine, "fine")
        return features

    def encode_coarse(self, coarse: Tensor) -> dict[str, Tensor]:
        """Compute the inputs of `start` for (B, 3, H, W) images, and a global `descriptor` (B, D) of each.

        The descriptor is the generalised mean of DINOv2's patch tokens; source: Keetha et al., AnyLoc, RA-L 2023.
        """
        patches = self._coarse_maps(coarse)
        return {**self._coarse_features(patches), "descriptor": generalized_mean(patches, DESCRIPTOR_POWER)}

    def _coarse_features(self, patches: Tensor) -> dict[str, Tensor]:
        stride = str(self.config.levels[0].stride)
        projected = self.projections[stride](patches.float())
        return {f"coarse_{stride}": projected, "alpha": self.gaussian_process.alpha(projected)}

    def _coarse_maps(self, image: Tensor) -> Tensor:
        """Features (B, C, h, w) of the coarsest level."""
        if self.config.coarse_encoder == "dinov2":
            return self.dinov2(image)
        return dict(self._encoder("resnet")(image))[16]

    def _fine_features(self, image: Tensor, name: str) -> dict[str, Tensor]:
        encoder = self._encoder(FINE_ENCODERS[self.config.fine_encoder])
        image = image.to(memory_format=torch.channels_last)
        return self._projected((found for found in encoder(image) if found[0] <= 8), name)

    def _projected(self, maps: Iterable[tuple[int, Tensor]], name: str) -> dict[str, Tensor]:
        return {f"{name}_{stride}": self.projections[str(stride)](features) for stride, features in maps}

    def _encoder(self, name: str) -> Callable[[Tensor], Iterator[tuple[int, Tensor]]]:
        """One of the convolutional encoders, accepting images of any precision."""
        encoder = getattr(self, name)
        dtype = next(encoder.parameters()).dtype
        return lambda image: encoder(image.to(dtype))

    def start(self, features_A: FeatureMaps, features_B: FeatureMaps, *, symmetric: bool = True) -> Unfinished:
        """Coarse warps: Gaussian process, transformer decoder and the most likely anchors.

        Reads the features of `encode_coarse`. The tensors are `flow` (2B or B, 2, h, w), normalised x, y in the other
        image, and `certainty` and `coarsest_certainty` (2B or B, 1, h, w), logits; all float32.
        """
        logits = self._logits(features_A, features_B, symmetric=symmetric)
        flow, certainty = self._decoded(logits[:, :-1]), logits[:, -1:]
        return Unfinished(tensors_of(flow, certainty, certainty), 2 if symmetric else 1)

    def _logits(self, features_A: FeatureMaps, features_B: FeatureMaps, *, symmetric: bool) -> Tensor:
        """Logits of the anchors, then certainty in the last channel: (B or 2B, anchors + 1, h, w)."""
        maps_A, maps_B = (features[f"coarse_{self.config.levels[0].stride}"] for features in (features_A, features_B))
        if maps_A.shape != maps_B.shape:
            raise ValueError(f"images A and B were encoded at different sizes: {maps_A.shape}, {maps_B.shape}")
        process, features = self.gaussian_process, tokens(maps_A)
        kernel = process.kernel(features.float(), tokens(maps_B).float())
        posterior = process.posterior(kernel, features_B["alpha"])
        if symmetric:
            posterior = torch.cat([posterior, process.posterior(kernel.transpose(1, 2), features_A["alpha"])])
            features = torch.cat([features, tokens(maps_B)])
        x, shape = torch.cat([posterior, features], dim=2), tuple(maps_A.shape[-2:])
        if self.config.transformer:
            return self.decoder(x).transpose(1, 2).unflatten(2, shape)
        return self.decoder(x.transpose(1, 2).unflatten(2, shape))

    def _decoded(self, answers: Tensor) -> Tensor:
        """Decode the decoder's outputs to the coarse flow (B, 2, h, w)."""
        return decode_anchors(answers) if self.config.classifies else answers

    def trace(self, features_A: FeatureMaps, features_B: FeatureMaps) -> Trace:
        """Everything computed for both directions of pairs, A to B in the first half, for the losses.

        No gradient flows from one stage to the previous one (section 3.4).
        """
        logits = self._logits(features_A, features_B, symmetric=True)
        flow, certainty = self._decoded(logits[:, :-1].detach()), logits[:, -1:]
        steps = self._steps(features_A, features_B)
        stages = tuple(self._stages(flow, certainty, features_A, features_B, steps, symmetric=True))
        return Trace(logits[:, :-1], certainty, stages)


def without_autocast(x: Tensor) -> torch.autocast:
    """A context in which products on x's device keep the precision of their operands."""
    return torch.autocast(x.device.type, enabled=False)


class StaysFloat32(nn.Module):
    """A module that moves between devices but keeps its precision when the surrounding network is converted."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)


class Float32Conv2d(StaysFloat32, PointwiseConv2d):
    """A 1x1 convolution that stays float32; a matrix product on GPUs, which round convolution inputs to TF32."""

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            return self.as_product(x)


class Float32Linear(StaysFloat32, Linear):
    """A linear layer that stays float32."""

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            return super().forward(x)


class Float32Sequential(StaysFloat32, nn.Sequential):
    """Layers that stay float32."""


def projection(level: Level) -> nn.Sequential:
    """A linear projection of one level's features; float32 at the coarsest, for the Gaussian process."""
    norm = nn.BatchNorm2d(level.channels)
    if level.stride == 16:
        return Float32Sequential(Float32Conv2d(level.in_channels, level.channels), norm)
    return nn.Sequential(PointwiseConv2d(level.in_channels, level.channels), norm)


class GaussianProcess(nn.Module):
    """Regress where the features of A are in B, in a cosine basis; all in float32.

    Source: section 3.3, after DKM (arXiv 2202.00667). The paper states an inverse temperature of 10, but the
    published weights were trained with 5. `noise` is a variance, added to the diagonal unscaled.
    """

    temperature = 0.2
    noise = 0.1

    def __init__(self, basis_channels: int) -> None:
        super().__init__()
        self.pos_conv = Float32Conv2d(2, basis_channels)

    def kernel(self, u: Tensor, v: Tensor) -> Tensor:
        """exp((cos(u, v) - 1) / temperature) for all tokens u (B, N, C) and v (B, M, C), as (B, N, M)."""
        with without_autocast(u):
            norms = u.norm(dim=2)[:, :, None] * v.norm(dim=2)[:, None, :]
            cosine = u @ v.transpose(1, 2) / (norms + 1e-6)
            return ((cosine - 1) / self.temperature).exp()

    def posterior(self, kernel: Tensor, alpha: Tensor) -> Tensor:
        """The posterior mean (B, N, C) from the cross kernel (B, N, M) and `alpha` (B, M, C)."""
        with without_autocast(kernel):
            return kernel @ alpha

    def basis(self, grid: Tensor) -> Tensor:
        """cos(8 pi (W p + b)) of positions (1, 2, h, w), as tokens (1, h * w, C)."""
        return tokens(torch.cos(8 * math.pi * self.pos_conv(grid)))

    def alpha(self, maps: Tensor) -> Tensor:
        """The part of the posterior that depends only on the target image: (K + noise I)^-1 f.

        The posterior mean is then the cross kernel times alpha.

        Args:
            maps: (B, C, h, w) float32 projected features.

        Returns:
            (B, h * w, basis channels) float32.
        """
        v = tokens(maps)
        covariance = self.kernel(v, v) + self.noise * torch.eye(v.shape[1], device=v.device)
        basis = self.basis(pixel_grid(maps)).expand(len(v), -1, -1)
        return solve_positive_definite(covariance, basis, strict=not self.training)


class Decoder(nn.Module):
    """A transformer from the posterior and A's own features to one logit per anchor and one for certainty.

    Source: section 3.3, "match decoder". No position encoding. The last layer is float32, unlike in the
    authors' code on a GPU, where half-precision logits can change the best anchor.
    """

    def __init__(self, dim: int, *, depth: int, heads: int, anchors: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, heads, norm_eps=1e-5, qkv_bias=False, layer_scale=False) for _ in range(depth)
        )
        self.to_out = Float32Linear(dim, anchors + 1)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, dim) to logits (B, N, anchors + 1), float32."""
        x = x.to(next(self.blocks.parameters()).dtype)
        for block in self.blocks:
            x = block(x)
        return self.to_out(x.float())


class ConvolutionDecoder(nn.Module):
    """The decoder without attention: residual blocks as in DKM, with the last layer in float32."""

    def __init__(self, dim: int, answers: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            ResidualBlock(dim, CONVOLUTIONS_WIDTH), ResidualBlock(CONVOLUTIONS_WIDTH, CONVOLUTIONS_WIDTH)
        )
        self.to_out = Float32Conv2d(CONVOLUTIONS_WIDTH, answers + 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) to answers and certainty (B, answers + 1, h, w), float32."""
        x = self.blocks(x.to(next(self.blocks.parameters()).dtype))
        return self.to_out(x.float())


class Refiner(nn.Module):
    """Corrects flow and certainty at one level of the pyramid.

    Source: DKM (arXiv 2202.00667), whose refiners RoMa reuses. One output unit moves the target by stride / 8
    image pixels; displacements are scaled by the image size relative to that in training.
    """

    training_side = 560

    def __init__(self, level: Level, blocks: int) -> None:
        super().__init__()
        self.stride = level.stride
        self.correlation_radius = level.correlation_radius
        window = 0 if level.correlation_radius is None else (2 * level.correlation_radius + 1) ** 2
        width = 2 * level.channels + level.displacement_channels + window
        self.block1 = refiner_block(width)
        self.hidden_blocks = nn.Sequential(*(refiner_block(width) for _ in range(blocks - 1)))
        self.out_conv = Float32Conv2d(width, 3)
        self.disp_emb = Float32Conv2d(2, level.displacement_channels)

    def forward(
        self, x: Tensor, y: Tensor, flow: Tensor, certainty: Tensor, image_shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Corrected flow and certainty.

        Args:
            x, y: (B, C, h, w) projected features of the source and the target image.
            flow: (B, 2, h, w) float32, normalised x, y in the other image.
            certainty: (B, 1, h, w) float32, logits.
            image_shape: (H, W) of the images at stride 1.
        """
        height, width = image_shape
        d = self._compare(x, y, flow, scale=math.sqrt(height * width) / self.training_side)
        for block in (self.block1, *self.hidden_blocks):
            for layer in block:  # calling the block would keep its input in memory
                d = layer(d)
        delta = self.out_conv(d.float())  # (B, 3, h, w)
        step = self.stride / 4 / flow.new_tensor([width, height])[:, None, None]
        return flow + delta[:, :2] * step, certainty + delta[:, 2:]

    def _compare(self, x: Tensor, y: Tensor, flow: Tensor, *, scale: float) -> Tensor:
        """A's features, B's at the targets, the embedded displacement and the local correlation, concatenated."""
        displacement = 40 / 32 * scale * (flow - pixel_grid(flow))
        parts = [x, sample(y, flow), self.disp_emb(displacement)]
        if self.correlation_radius is not None:
            with torch.no_grad():  # as in the authors' training; gradients would take most of the memory
                parts.append(local_correlation(x, y, flow, self.correlation_radius))
        dtype = next(self.block1.parameters()).dtype
        # Converted to one memory format before concatenation; afterwards it would take a copy of everything.
        return torch.cat([part.to(dtype, memory_format=torch.channels_last) for part in parts], dim=1)


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


def decode_anchors(logits: Tensor) -> Tensor:
    """Flow from anchor logits: the best anchor and its four neighbours, weighted by their probabilities.

    Source: section 3.3, regression by classification. Neighbours are found by flat index, so at the border they
    wrap to another row or, clamped, count twice, as in the authors' code.

    Args:
        logits: (B, side * side, h, w) float32, anchors row-major.

    Returns:
        (B, 2, h, w) normalised x, y.
    """
    anchors = logits.shape[1]
    side = math.isqrt(anchors)
    best = logits.argmax(dim=1, keepdim=True)
    offsets = best.new_tensor([-1, 0, 1, -side, side])[:, None, None]
    near = (best + offsets).clamp(0, anchors - 1)  # (B, 5, h, w)
    weights = logits.gather(1, near).softmax(dim=1)
    x = (2 * (near % side) + 1) / side - 1
    y = (2 * near.div(side, rounding_mode="floor") + 1) / side - 1
    return torch.stack([(weights * x).sum(1), (weights * y).sum(1)], dim=1)


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


def finished(state: Unfinished) -> NetworkMatch:
    """The current warps of the pairs."""
    warp, probability = finish(**state.tensors)
    if state.directions == 1:
        return NetworkMatch(warp, probability)
    (warp_AB, warp_BA), (probability_AB, probability_BA) = warp.chunk(2), probability.chunk(2)
    return NetworkMatch(warp_AB, probability_AB, warp_BA, probability_BA)


def checkpoint_layouts(net: RoMa) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Names and shapes of the tensors in RoMa's and DINOv2's files for such a network, before any folding."""
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    roma, dinov2 = (
        {checkpoint_name(name): shape for name, shape in shapes.items() if name.startswith(DINOV2_PREFIX) == of_dinov2}
        for of_dinov2 in (False, True)
    )
    return roma, dinov2


def checkpoint_name(name: str) -> str:
    """The name in the published files of a tensor of this network."""
    if name.startswith(DINOV2_PREFIX):
        return name.removeprefix(DINOV2_PREFIX)
    return published_name(name, CHECKPOINT_PREFIXES)
