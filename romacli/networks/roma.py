"""RoMa, read top-down: the network, the transformer decoder and the refiners.

Source: Edstedt et al., RoMa: Robust Dense Feature Matching (arXiv 2305.15404). Where the published weights were trained
differently from the paper, the code follows the weights. Operates on tensors only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from .backbones.dinov2 import DINOv2, DINOv2Config, TransformerBlock
from .backbones.vgg import VGG19
from .parts.float32 import Float32Conv2d, Float32Linear, Float32Sequential
from .parts.folding import fold_batchnorm
from .parts.gaussian_process import GaussianProcess
from .parts.local_correlation import local_correlation
from .parts.maps import pixel_grid, sample, tokens
from .parts.output import Unfinished
from .parts.pointwise import PointwiseConv2d
from .parts.pooling import generalized_mean
from .parts.pyramid import FeatureMaps, Level, PyramidMatcher, Stage, refiner_block, tensors_of
from .parts.residual import ResidualBlock, ResNet50
from .weights import published_name, require_layout, to_float32


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
        """Compute the inputs of `start` for (B, 3, H, W) images."""
        return self._coarse_features(self._coarse_maps(coarse))

    def descriptor(self, coarse: Tensor) -> Tensor:
        """Compute a global descriptor (B, D) of unit length of each of (B, 3, H, W) images.

        It is the generalised mean of DINOv2's patch tokens; source: Keetha et al., AnyLoc, RA-L 2023.
        """
        return generalized_mean(self._coarse_maps(coarse), DESCRIPTOR_POWER)

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
        stages: list[Stage] = []
        for step in self._steps(features_A, features_B):
            stages.append(self._stage(step, flow, certainty, features_A, features_B, symmetric=True))
            flow, certainty = stages[-1].flow, stages[-1].certainty
        return Trace(logits[:, :-1], logits[:, -1:], tuple(stages))


def projection(level: Level) -> nn.Sequential:
    """A linear projection of one level's features; float32 at the coarsest, for the Gaussian process."""
    norm = nn.BatchNorm2d(level.channels)
    if level.stride == 16:
        return Float32Sequential(Float32Conv2d(level.in_channels, level.channels), norm)
    return nn.Sequential(PointwiseConv2d(level.in_channels, level.channels), norm)


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
