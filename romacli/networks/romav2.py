"""RoMa v2, read top-down: the network, the transformer of both views, the head and the refiners.

Source: Edstedt et al., RoMa v2: Harder Better Faster Denser Feature Matching (arXiv 2511.15706). Where the published
weights were trained differently from the paper, the code follows the weights. Operates on tensors only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones.dinov2 import TransformerBlock
from .backbones.dinov3 import DINOv3, DINOv3Config, Periods
from .backbones.vgg import VGG19
from .parts.float32 import Float32Conv2d, Float32Linear, Float32Sequential, without_autocast
from .parts.folding import fold_batchnorm
from .parts.local_correlation import local_correlation
from .parts.maps import pixel_grid, sample, tokens
from .parts.output import PreciseMatch, Unfinished
from .parts.pointwise import Linear, PointwiseConv2d
from .parts.pooling import generalized_mean
from .parts.pyramid import FeatureMaps, Level, PyramidMatcher
from .parts.rotary import rotation
from .weights import load_strictly, published_name

RELEASES = ("2.0.0", "2.0.1")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DESCRIPTOR_POWER = 3.0


@dataclass(frozen=True)
class RoMaV2Config:
    """Sizes of the network; the defaults are those of the published weights, coarsest refiner first."""

    dinov3: DINOv3Config = field(default_factory=DINOv3Config)
    view_dim: int = 768
    view_depth: int = 12
    view_heads: int = 12
    head_channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    head_width: int = 256
    levels: tuple[Level, ...] = (Level(4, 256, 192, 79, 3), Level(2, 128, 48, 23, 1), Level(1, 64, 12, 8))
    refiner_blocks: int = 9


PUBLISHED = RoMaV2Config()

# Prefixes of module names in the published checkpoint, and in this code.
CHECKPOINT_PREFIXES = {
    "f.": "dinov3.",
    "matcher.mv_vit.": "transformer.",
    "refiner_features.": "vgg.",
    "refiners.": "refiners.",
    "matcher.head.norm.": "head.norm.",
    "matcher.head.projects.": "head.projects.",
    "matcher.head.resize_layers.": "head.resize_layers.",
    "matcher.head.scratch.": "head.",
    "matcher.": "",  # top-level tensors
}


class RoMaV2(PyramidMatcher):
    """Dense matching of two images, with per-image and per-pair work separated.

    `encode` computes all that depends on one image, `match` (`start`, `refine`, `result`) what depends on both; targets
    may lie outside the other image. Under autocast the comparison of views, projections of fine features, outputs and
    coordinates stay float32.
    """

    omega: Tensor
    scale: Tensor
    temp: Tensor

    def __init__(self, config: RoMaV2Config = PUBLISHED, *, release: str) -> None:
        """release: of the weights; 2.0.0 correlates with features of B warped twice, in training as well."""
        super().__init__()
        if release not in RELEASES:
            raise ValueError(f"release {release} of RoMa v2 is not known, only {' and '.join(RELEASES)}")
        self.config, self.levels = config, config.levels
        dim = config.dinov3.dim
        self.dinov3 = DINOv3(config.dinov3)
        self.transformer = MultiViewTransformer(config)
        self.register_buffer("omega", torch.zeros(dim // 2, 2))
        self.register_buffer("scale", torch.tensor(1))
        self.register_buffer("temp", torch.tensor(0.1))
        self.head = Head(config)
        self.vgg = VGG19([level.in_channels for level in reversed(config.levels)])
        self.refiners = nn.ModuleDict(
            {str(level.stride): Refiner(level, config.refiner_blocks, release) for level in config.levels}
        )

    @classmethod
    def from_checkpoint(
        cls, state_dict: Mapping[str, Tensor], *, release: str, config: RoMaV2Config = PUBLISHED, fold: bool = True
    ) -> RoMaV2:
        """Build a network ready for inference, with the weights of a published file.

        Args:
            state_dict: as published; float tensors of any precision, used as float32, those of DINOv3 rounded to
                bfloat16 first, as in the authors' model.
            release: 2.0.1 or 2.0.0. The layouts of their files are equal and do not identify the release.
            config: smaller sizes than the published ones, for networks in tests.
            fold: merge the batch normalisations into the preceding convolutions.

        Raises:
            WeightsError: a name is missing, unexpected or of another shape.
            ValueError: unknown release.
        """
        with torch.device("meta"):
            net = cls(config, release=release)
        unread = {f"f.{name}": shape for name, shape in net.dinov3.unread().items()}
        load_strictly(net, state_dict, checkpoint_name, what="RoMa v2", unread=unread)
        masks = {name.removesuffix("_mask"): state_dict[name] for name in unread if name.endswith("bias_mask")}
        net.dinov3.as_shipped({name.removeprefix("f."): mask for name, mask in masks.items()})
        if fold:
            fold_batchnorm(net)
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, low: Tensor, high: Tensor | None = None) -> dict[str, Tensor]:
        """Compute all that depends on one image alone, to be reused for every pair of the image.

        Args:
            low: (B, 3, H, W) float32 in [0, 1], as resized by `resize`; H and W multiples of 16.
            high: the same images, larger, for a second pass of refinement, sides multiples of 4; or None.

        Returns:
            Tensors with the batch in dim 0: `tokens` (B, h * w, 768) for the transformer of both views, `deep`
            (B, 1024, h, w) and `level_1`, `level_2` for the head; projected features `coarse_4` ... `coarse_1` and,
            with a second pass, `fine_4` ... `fine_1`, each (B, C, H / stride, W / stride) float32.
        """
        features = self.encode_coarse(low)
        for name, image, divisor in (("coarse", low, self.config.dinov3.patch), ("fine", high, 4)):
            if image is not None:
                _check_sides(image, divisor)
                for stride, maps in self.vgg(standardised(image).to(memory_format=torch.channels_last)):
                    features[f"{name}_{stride}"] = self._refiner(stride).project(maps)
        return features

    def encode_coarse(self, low: Tensor) -> dict[str, Tensor]:
        """Compute the inputs of `start` for (B, 3, H, W) images."""
        patch = self.config.dinov3.patch
        _check_sides(low, patch)
        grid = tuple(side // patch for side in low.shape[-2:])
        shallow, deep = self.dinov3(standardised(low))
        level_1, level_2 = self.head.shallow(as_maps(shallow, grid))
        return {
            "tokens": self.transformer.projector(torch.cat([shallow, deep], dim=2)),
            "deep": as_maps(deep, grid),
            "level_1": level_1,
            "level_2": level_2,
        }

    def descriptor(self, low: Tensor) -> Tensor:
        """Compute a global descriptor (B, D) of unit length of each of (B, 3, H, W) images."""
        return generalized_mean(self.encode_coarse(low)["deep"], DESCRIPTOR_POWER)

    def start(self, features_A: FeatureMaps, features_B: FeatureMaps, *, symmetric: bool = True) -> Unfinished:
        """Coarse warps, from the transformer of both views and the head.

        Reads the features of `encode_coarse`. The tensors are `flow` (2B or B, 2, h, w), normalised x, y in the other
        image, and `confidence` (2B or B, 4, h, w), the overlap logit and three entries of the precision; all float32.
        """
        maps_A, maps_B = features_A["deep"], features_B["deep"]
        if maps_A.shape != maps_B.shape:
            raise ValueError(f"images A and B were encoded at different sizes: {maps_A.shape}, {maps_B.shape}")
        grid = tuple(maps_A.shape[-2:])
        seen_A, seen_B = self.transformer(features_A["tokens"], features_B["tokens"], grid)
        logits = self.logits(seen_A, seen_B)
        places = self.position_table(maps_A)
        seen = seen_A + logits.softmax(dim=2) @ places
        sources = [features_A]
        if symmetric:
            seen = torch.cat([seen, seen_B + logits.transpose(1, 2).softmax(dim=2) @ places])
            sources.append(features_B)
        deep, level_1, level_2 = (
            torch.cat([features[name] for features in sources]) for name in ("deep", "level_1", "level_2")
        )
        found = self.head(level_1, level_2, deep.float() + as_maps(seen, grid))
        confidence = F.pad(found[:, 2:], (0, 0, 0, 0, 0, 3))  # precision starts at zero
        return Unfinished({"flow": found[:, :2], "confidence": confidence}, 2 if symmetric else 1)

    def logits(self, seen_A: Tensor, seen_B: Tensor) -> Tensor:
        """Cosines between all tokens (B, N, D) of both views, divided by the temperature: (B, N, N) float32."""
        with without_autocast(seen_A):
            a, b = (seen.float() / seen.float().norm(dim=2, keepdim=True) for seen in (seen_A, seen_B))
            return a @ b.transpose(1, 2) / self.temp

    def position_table(self, maps: Tensor) -> Tensor:
        """Sines, then cosines of the positions of maps (B, C, h, w): (1, h * w, D) float32."""
        with without_autocast(maps):
            phases = self.scale * tokens(pixel_grid(maps)) @ self.omega.float().T
            return torch.cat([phases.sin(), phases.cos()], dim=2)

    def refine(
        self, state: Unfinished, features_A: FeatureMaps, features_B: FeatureMaps, *, down_to: int | None = None
    ) -> Unfinished:
        """Refine pairs at all levels, then again in a second pass; see `PyramidMatcher.refine`."""
        flow, confidence = state.tensors["flow"], state.tensors["confidence"]
        steps = self._steps(features_A, features_B, down_to)[state.steps :]
        for step in steps:
            if step == ("fine", self.levels[0]):
                confidence = F.pad(confidence[:, :1], (0, 0, 0, 0, 0, 3))  # each pass has its own precision
            stage = self._stage(step, flow, confidence, features_A, features_B, symmetric=state.directions == 2)
            flow, confidence = stage.flow, stage.certainty
        tensors = {"flow": flow, "confidence": confidence}
        return Unfinished(tensors, state.directions, state.steps + len(steps))

    def result(self, state: Unfinished) -> PreciseMatch:
        """The current warps of the pairs."""
        warp = state.tensors["flow"].permute(0, 2, 3, 1).contiguous()
        logit, p00, p10, p11 = state.tensors["confidence"].unbind(1)
        overlap, precision = logit.sigmoid(), torch.stack([p00, p10, p10, p11], dim=-1).unflatten(-1, (2, 2))
        if state.directions == 1:
            return PreciseMatch(warp, overlap, precision_AB=precision)
        (warp_AB, warp_BA), (overlap_AB, overlap_BA) = warp.chunk(2), overlap.chunk(2)
        return PreciseMatch(warp_AB, overlap_AB, warp_BA, overlap_BA, *precision.chunk(2))

    def _refiner(self, stride: int) -> Refiner:
        refiner = self.refiners[str(stride)]
        assert isinstance(refiner, Refiner)
        return refiner


class MultiViewTransformer(nn.Module):
    """Attention across the tokens of two images, alternating with attention within each image.

    Source: section 3.2. Only attention within an image encodes positions, by rotation. The authors compute the rotation
    in bfloat16, whatever the precision of the rest; set `rope_dtype` to measure the difference.
    """

    def __init__(self, config: RoMaV2Config) -> None:
        super().__init__()
        dim, heads, features = config.view_dim, config.view_heads, config.dinov3.dim
        self.rope_dtype = torch.bfloat16
        self.projector = Linear(2 * features, dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, heads, norm_eps=1e-6, qkv_bias=True, layer_scale=False)
            for _ in range(config.view_depth)
        )
        self.rope_embed = Periods(dim // heads // 4)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.output_projector = Linear(dim, features)

    def forward(self, tokens_A: Tensor, tokens_B: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Projected tokens (B, N, dim) of both images to (B, N, features) float32; grid: rows and columns of each."""
        batch, count = tokens_A.shape[:2]
        turned = rotation(self.rope_embed.periods, *grid, dtype=self.rope_dtype)
        x = torch.cat([tokens_A, tokens_B], dim=1)  # (B, 2N, dim)
        for index, block in enumerate(self.blocks):
            apart = index % 2 == 1
            x = block(x.view(2 * batch, count, -1), turned) if apart else block(x.view(batch, 2 * count, -1))
        seen = self.output_projector(self.norm(x.view(batch, 2 * count, -1))).float()
        return seen[:, :count], seen[:, count:]


class Head(nn.Module):
    """A head from patch features to flow and overlap at stride 4.

    Source: Ranftl et al., Vision Transformers for Dense Prediction (arXiv 2103.13413). Its two finer levels depend only
    on the shallow features of the source image and are computed once per image; the others depend on the pair.
    """

    def __init__(self, config: RoMaV2Config) -> None:
        super().__init__()
        dim, width = config.dinov3.dim, config.head_width
        one, two, three, four = config.head_channels
        self.norm = nn.LayerNorm(dim)
        self.projects = nn.ModuleList(PointwiseConv2d(dim, channels) for channels in config.head_channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(one, one, 4, stride=4),
                nn.ConvTranspose2d(two, two, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(four, four, 3, stride=2, padding=1),
            ]
        )
        self.layer1_rn = nn.Conv2d(one, width, 3, padding=1, bias=False)
        self.layer2_rn = nn.Conv2d(two, width, 3, padding=1, bias=False)
        self.layer3_rn = nn.Conv2d(three, width, 3, padding=1, bias=False)
        self.layer4_rn = nn.Conv2d(four, width, 3, padding=1, bias=False)
        self.refinenet1 = Fusion(width)
        self.refinenet2 = Fusion(width)
        self.refinenet3 = Fusion(width)
        self.refinenet4 = Fusion(width, joins=False)
        self.output_conv1 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.output_conv2 = Float32Sequential(
            nn.Conv2d(width // 2, 32, 3, padding=1), nn.ReLU(inplace=True), Float32Conv2d(32, 3)
        )

    def shallow(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The two finer levels, (B, 256, 4h, 4w) and (B, 256, 2h, 2w), from features (B, 1024, h, w)."""
        maps = self._normalised(maps)
        one, two = (self.resize_layers[i](self.projects[i](maps)) for i in (0, 1))
        return self.refinenet1.resConfUnit1(self.layer1_rn(one)), self.refinenet2.resConfUnit1(self.layer2_rn(two))

    def forward(self, level_1: Tensor, level_2: Tensor, maps: Tensor) -> Tensor:
        """Flow and overlap logit (B, 3, 4h, 4w) float32.

        Args:
            level_1, level_2: from `shallow`. maps: (B, 1024, h, w) of the source image, after seeing the other.
        """
        maps = self._normalised(maps)
        three, four = (self.resize_layers[i](self.projects[i](maps)) for i in (2, 3))
        three = self.layer3_rn(three)
        x = self.refinenet4(self.layer4_rn(four), shape=three.shape[-2:])
        x = self.refinenet3(x + self.refinenet3.resConfUnit1(three), shape=level_2.shape[-2:])
        x = self.refinenet2(x + level_2, shape=level_1.shape[-2:])
        x = self.refinenet1(x + level_1, shape=[2 * side for side in level_1.shape[-2:]])
        x = corner_aligned(self.output_conv1(x).float(), level_1.shape[-2:])
        with without_autocast(x):
            return self.output_conv2(x)

    def _normalised(self, maps: Tensor) -> Tensor:
        return self.norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Fusion(nn.Module):
    """Combines a level with the result of the coarser ones, at twice its size."""

    def __init__(self, width: int, *, joins: bool = True) -> None:
        super().__init__()
        self.out_conv = PointwiseConv2d(width, width)
        if joins:
            self.resConfUnit1 = ResidualUnit(width)
        self.resConfUnit2 = ResidualUnit(width)

    def forward(self, x: Tensor, *, shape: torch.Size | list[int]) -> Tensor:
        """The combined maps, resized to a shape. Projecting channels before the resize is equivalent and cheaper."""
        return corner_aligned(self.out_conv(self.resConfUnit2(x)), shape)


class ResidualUnit(nn.Module):
    """Two convolutions added to the ReLU of the input, not to the input itself, as in the weights' training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return x + self.conv2(F.relu(self.conv1(x), inplace=True))


class Refiner(nn.Module):
    """Corrects flow, overlap and precision at one level of the pyramid.

    Source: section 3.3. One output unit moves the target by an eighth of a pixel of this level's maps.
    """

    trained_side = 512

    def __init__(self, level: Level, blocks: int, release: str) -> None:
        super().__init__()
        self.correlation_radius = level.correlation_radius
        self.warps_twice = release == "2.0.0"
        window = 0 if level.correlation_radius is None else (2 * level.correlation_radius + 1) ** 2
        width = 2 * level.channels + level.displacement_channels + window
        self.proj = Float32Linear(level.in_channels, level.channels)
        self.block1 = refiner_block(width)
        self.hidden_blocks = nn.Sequential(*(refiner_block(width) for _ in range(blocks - 1)))
        self.disp_emb = Float32Conv2d(2, level.displacement_channels)
        self.warp_head = Float32Conv2d(width, 2)
        self.confidence_head = Float32Conv2d(width, 4)

    def project(self, maps: Tensor) -> Tensor:
        """Project fine features (B, in_channels, h, w) to (B, channels, h, w) float32."""
        return self.proj(maps.float().permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def forward(
        self, x: Tensor, y: Tensor, flow: Tensor, confidence: Tensor, image_shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Corrected flow and confidence.

        Args:
            x, y: (B, C, h, w) float32 projected features of the source and the target image.
            flow: (B, 2, h, w) float32, normalised x, y in the other image.
            confidence: (B, 4, h, w) float32: the overlap logit, then the precision's entries xx, xy and yy.
            image_shape: (H, W) of the images at stride 1.
        """
        d = self._compare(x, y, flow, image_shape)
        for block in (self.block1, *self.hidden_blocks):
            for layer in block:  # calling the block would keep its input in memory
                d = layer(d)
        d = d.float()
        height, width = flow.shape[-2:]
        step = self.warp_head(d) / 4 / flow.new_tensor([width, height])[:, None, None]
        return flow + step, confidence + increments(self.confidence_head(d))

    def _compare(self, x: Tensor, y: Tensor, flow: Tensor, image_shape: tuple[int, int]) -> Tensor:
        """A's features, B's at the targets, the embedded displacement and the local correlation, concatenated."""
        height, width = image_shape
        scale = flow.new_tensor([width, height])[:, None, None] / self.trained_side
        warped = sample(y, flow)
        parts = [x, warped, self.disp_emb(scale * (flow - pixel_grid(flow)))]
        if self.correlation_radius is not None:
            parts.append(local_correlation(x, warped if self.warps_twice else y, flow, self.correlation_radius))
        return torch.cat([part.to(memory_format=torch.channels_last) for part in parts], dim=1)


def refiner_block(width: int) -> nn.Sequential:
    """A depthwise 5x5 convolution, batch normalisation and ReLU, then a pointwise convolution; no residual."""
    return nn.Sequential(
        OrderedDict(
            conv_depthwise=nn.Conv2d(width, width, kernel_size=5, padding=2, groups=width),
            norm=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
            conv_pointwise=PointwiseConv2d(width, width),
        )
    )


def increments(raw: Tensor) -> Tensor:
    """The update of a confidence, from a refiner's four outputs (B, 4, h, w).

    The last three parametrise the Cholesky factor of a precision: its off-diagonal entry is in the middle; its diagonal
    is passed through softplus.
    """
    l00, l11 = (F.softplus(raw[:, i]) + 1e-6 for i in (1, 3))
    l10 = raw[:, 2]
    return torch.stack([raw[:, 0], l00.square(), l00 * l10, l10.square() + l11.square()], dim=1)


def resize(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """Stretch (B, 3, H, W) float32 in [0, 1] to a shape by antialiased bicubic interpolation, not clamped."""
    return F.interpolate(image, shape, mode="bicubic", antialias=True, align_corners=False)


def standardised(image: Tensor) -> Tensor:
    """Normalise (B, 3, H, W) in [0, 1] by ImageNet's mean and deviation."""
    mean, std = (image.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image - mean) / std


def as_maps(features: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Row-major tokens (B, h * w, C) as maps (B, C, h, w)."""
    return features.transpose(1, 2).unflatten(2, grid)


def corner_aligned(maps: Tensor, shape: torch.Size | list[int]) -> Tensor:
    """Bilinear resize that aligns the centres of corner pixels; used only in the head."""
    return F.interpolate(maps, size=tuple(shape), mode="bilinear", align_corners=True)


def checkpoint_name(name: str) -> str:
    """The name in the published file of a tensor of this network."""
    return published_name(name, CHECKPOINT_PREFIXES)


def _check_sides(image: Tensor, divisor: int) -> None:
    if any(side % divisor or not side for side in image.shape[-2:]):
        raise ValueError(f"image is {tuple(image.shape)}, its sides must be multiples of {divisor}")
