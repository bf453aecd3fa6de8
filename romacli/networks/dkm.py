"""DKM v3, read top-down: the network, its embedding decoder and the refiners.

Source: Edstedt et al., DKM: Dense Kernelized Feature Matching for Geometry Estimation (arXiv 2202.00667), RoMa's
predecessor. Where the published weights were trained differently, the code follows the weights. Operates on tensors
only.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .parts.float32 import Float32Conv2d
from .parts.folding import fold_batchnorm
from .parts.gaussian_process import GaussianProcess
from .parts.local_correlation import local_correlation
from .parts.maps import pixel_grid, resized, sample, tokens
from .parts.output import Unfinished
from .parts.pointwise import PointwiseConv2d
from .parts.pooling import generalized_mean
from .parts.pyramid import FeatureMaps, Level, PyramidMatcher, refiner_block, tensors_of
from .parts.residual import ResidualBlock, ResNet50
from .weights import load_strictly, published_name

DECODED = (("32", 2048), ("16", 1024))  # strides of the decoder, and the backbone's channels there
PROJECTED = 512
BASIS = 256  # channels of positions in the Gaussian processes, and of the features concatenated with them
CONTEXT = 384
LEVELS = (
    Level(16, 1024, PROJECTED, 128, 7),
    Level(8, 512, 512, 64, 3),
    Level(4, 256, 256, 32, 2),
    Level(2, 64, 64, 16),
    Level(1, 3, 3, 6),
)
REFINER_BLOCKS = 9
DESCRIPTOR_POWER = 3.0
SMALLEST = 32  # minimum side of an image

# Prefixes of module names in the published checkpoint, and in this code.
CHECKPOINT_PREFIXES = {
    "encoder.net.": "resnet.",
    "decoder.embedding_decoder.": "decoder.",
    "decoder.gps.": "gaussian_processes.",
    "decoder.proj.": "projections.",
    "decoder.conv_refiner.": "refiners.",
}
CLASSIFIER = {"encoder.net.fc.weight": (1000, 2048), "encoder.net.fc.bias": (1000,)}  # in the file, unused


class DKM(PyramidMatcher):
    """Dense matching of two images, with per-image and per-pair work separated.

    `encode` computes all that depends on one image, `match` (`start`, `refine`, `result`) what depends on both. The
    Gaussian processes, the refiners' outputs and all coordinates stay float32 under autocast.
    """

    def __init__(self) -> None:
        super().__init__()
        self.levels = LEVELS
        self.resnet = ResNet50()
        self.projections = nn.ModuleDict({stride: PointwiseConv2d(width, PROJECTED) for stride, width in DECODED})
        self.gaussian_processes = nn.ModuleDict({stride: GaussianProcess(BASIS) for stride, _ in DECODED})
        self.decoder = Decoder()
        self.refiners = nn.ModuleDict({str(level.stride): Refiner(level) for level in LEVELS})

    @classmethod
    def from_checkpoint(cls, state_dict: Mapping[str, Tensor]) -> DKM:
        """Build a network ready for inference, with the weights of a published file; see `RoMa.from_checkpoints`."""
        with torch.device("meta"):
            net = cls()
        load_strictly(net, state_dict, checkpoint_name, what="DKM", unread=CLASSIFIER)
        fold_batchnorm(net)
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, coarse: Tensor, fine: Tensor | None = None) -> dict[str, Tensor]:
        """Compute all that depends on one image alone, to be reused for every pair of the image.

        Args:
            coarse: (B, 3, H, W) float32, ImageNet-normalised; H and W at least 32, otherwise any size.
            fine: the same images, larger, for a second pass of refinement, or None for a single pass.

        Returns:
            Tensors with the batch in dim 0: features `coarse_32` ... `coarse_1`, projected at strides 32 and 16,
            and, with a second pass, `fine_8` ... `fine_1`, each (B, C, ceil(H / stride), ceil(W / stride)); for strides
            32 and 16 the decoder's `embedded_` (B, 256, h, w) and `alpha_` (B, h * w, 256) float32, the part of the
            Gaussian process's posterior that depends only on the target image.
        """
        features = self.encode_coarse(coarse)
        if fine is not None:
            features |= {f"fine_{stride}": maps for stride, maps in self.resnet(_checked(fine), down_to=8)}
        return features

    def encode_coarse(self, coarse: Tensor) -> dict[str, Tensor]:
        """Compute the inputs of `start` for (B, 3, H, W) images."""
        features = {}
        for stride, maps in self.resnet(_checked(coarse), down_to=32):
            if str(stride) in self.projections:
                maps = self.projections[str(stride)](maps).float()
                features[f"embedded_{stride}"] = self.decoder.feat_input_modules[str(stride)](maps)
                features[f"alpha_{stride}"] = self._process(str(stride)).alpha(maps)
            features[f"coarse_{stride}"] = maps
        return features

    def descriptor(self, coarse: Tensor) -> Tensor:
        """Compute a global descriptor (B, D) of unit length of each of (B, 3, H, W) images."""
        maps = dict(self.resnet(_checked(coarse), down_to=32))[32]
        return generalized_mean(self.projections["32"](maps), DESCRIPTOR_POWER)

    def _process(self, stride: str) -> GaussianProcess:
        process = self.gaussian_processes[stride]
        assert isinstance(process, GaussianProcess)
        return process

    def start(self, features_A: FeatureMaps, features_B: FeatureMaps, *, symmetric: bool = True) -> Unfinished:
        """Coarse warps: Gaussian process and decoder at stride 32, then at stride 16 with the context from 32.

        Reads the features of `encode_coarse`. The tensors are `flow` (2B or B, 2, h, w), normalised x, y in the other
        image, and `certainty` and `coarsest_certainty` (2B or B, 1, h, w), logits; all float32.
        """
        context: Tensor | None = None
        for stride, _ in DECODED:
            maps_A, maps_B = (features[f"coarse_{stride}"] for features in (features_A, features_B))
            if maps_A.shape != maps_B.shape:
                raise ValueError(f"images A and B were encoded at different sizes: {maps_A.shape}, {maps_B.shape}")
            embedded, process = features_A[f"embedded_{stride}"], self._process(stride)
            kernel = process.kernel(tokens(maps_A), tokens(maps_B))
            posterior = process.posterior(kernel, features_B[f"alpha_{stride}"])
            if symmetric:
                back = process.posterior(kernel.transpose(1, 2), features_A[f"alpha_{stride}"])
                posterior = torch.cat([posterior, back])
                embedded = torch.cat([embedded, features_B[f"embedded_{stride}"]])
            posterior = posterior.transpose(1, 2).unflatten(2, tuple(maps_A.shape[-2:]))
            prediction, context = self.decoder(stride, embedded, posterior, context)
        flow, certainty = prediction[:, 1:], prediction[:, :1]
        return Unfinished(tensors_of(flow, certainty, certainty), 2 if symmetric else 1)


class Decoder(nn.Module):
    """Coarse-to-fine decoder from embedded features and posterior to certainty and coordinates.

    Source: DKM, section 3.2, whose embedding decoder follows DFN (arXiv 1804.09337): a context carries information
    from one stride to the next, and a gate weights each channel of a level before it is added.
    """

    def __init__(self) -> None:
        super().__init__()

        def at_both(make: type[nn.Module], *sizes: int) -> nn.ModuleDict:
            return nn.ModuleDict({stride: make(*sizes) for stride, _ in DECODED})

        self.feat_input_modules = at_both(PointwiseConv2d, PROJECTED, BASIS)
        self.rrb_d = at_both(ResidualBlock, 2 * BASIS, CONTEXT)
        self.cab = at_both(Gate)
        self.rrb_u = at_both(ResidualBlock, CONTEXT, CONTEXT)
        self.terminal_module = at_both(Float32Conv2d, CONTEXT, 3)

    def forward(
        self, stride: str, embedded: Tensor, posterior: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Certainty logit, x and y (B, 3, h, w) float32, and the context (B, 384, h, w) for the next stride.

        Args:
            embedded: (B, 256, h, w) of image A. posterior: (B, 256, h, w) on A's grid.
            context: from the previous stride, None at the first.
        """
        embedding = self.rrb_d[stride](torch.cat([embedded, posterior.to(embedded.dtype)], dim=1))
        context = torch.zeros_like(embedding) if context is None else resized(context, embedding.shape[-2:])
        context = self.rrb_u[stride](self.cab[stride](context, embedding))
        return self.terminal_module[stride](context.float()), context


class Gate(nn.Module):
    """Adds an embedding to a context, weighted per channel by a gate on the image means of both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = PointwiseConv2d(2 * CONTEXT, CONTEXT)
        self.conv2 = PointwiseConv2d(CONTEXT, CONTEXT)

    def forward(self, context: Tensor, embedding: Tensor) -> Tensor:
        mean = torch.cat([context, embedding], dim=1).mean(dim=(2, 3), keepdim=True)
        return self.conv2(F.relu(self.conv1(mean))).sigmoid() * embedding + context


class Refiner(nn.Module):
    """Corrects flow and certainty at one level of the pyramid.

    Source: DKM, section 3.3. One output unit moves the target by stride / 8 image pixels.
    """

    def __init__(self, level: Level) -> None:
        super().__init__()
        self.stride = level.stride
        self.correlation_radius = level.correlation_radius
        window = 0 if level.correlation_radius is None else (2 * level.correlation_radius + 1) ** 2
        reads = 2 * level.channels + level.displacement_channels + window
        width = 2 * reads if level.stride == 1 else reads
        self.block1 = refiner_block(width, reads=reads)
        self.hidden_blocks = nn.Sequential(*(refiner_block(width) for _ in range(REFINER_BLOCKS - 1)))
        self.out_conv = Float32Conv2d(width, 3)
        self.disp_emb = Float32Conv2d(2, level.displacement_channels)

    def forward(
        self, x: Tensor, y: Tensor, flow: Tensor, certainty: Tensor, image_shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Corrected flow and certainty; the arguments are those of RoMa's refiner."""
        parts = [x, sample(y, flow), self.disp_emb(flow - pixel_grid(flow))]
        if self.correlation_radius is not None:
            parts.append(local_correlation(x, y, flow, self.correlation_radius))
        d = torch.cat([part.to(x.dtype, memory_format=torch.channels_last) for part in parts], dim=1)
        del parts
        for block in (self.block1, *self.hidden_blocks):
            for layer in block:  # calling the block would keep its input in memory
                d = layer(d)
        delta = self.out_conv(d.float())  # (B, 3, h, w), certainty first
        height, width = image_shape
        step = self.stride / 4 / flow.new_tensor([width, height])[:, None, None]
        return flow + delta[:, 1:] * step, certainty + delta[:, :1]


def checkpoint_name(name: str) -> str:
    """The name in the published file of a tensor of this network."""
    return published_name(name, CHECKPOINT_PREFIXES)


def _checked(image: Tensor) -> Tensor:
    if min(image.shape[-2:]) < SMALLEST:
        raise ValueError(f"image is {tuple(image.shape)}, its sides must be at least {SMALLEST}")
    return image
