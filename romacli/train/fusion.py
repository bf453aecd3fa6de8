"""Training of MATCHA's fusion network: on two frozen feature maps of mini's trunk, at a size for one GPU or a CPU.

Its authors train on Stable Diffusion's features; their results need their data. This setup shows that it learns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from romacli.errors import UsageError, WeightsError
from romacli.geometry.ground_truth import ground_truth_at
from romacli.matchers.adapters.mini import EMBEDDED
from romacli.matchers.dense import normalise
from romacli.networks.matcha import Fusion, FusionConfig
from romacli.networks.mini import Trunk, load_mini
from romacli.networks.parts.maps import resized
from romacli.networks.weights import read_weights

from .losses import fusion_loss
from .options import TrainOptions
from .trainable import Batch, Phase, Trainable, cosine_decay

LAYOUT = "romacli-fusion-1"
SEMANTIC_STRIDE, GEOMETRIC_STRIDE = 16, 8
# Channels of the fused maps in the published proportion.
SMALL = FusionConfig(256, 128, 192, 64, width=128, blocks=2, heads=4, head_width=128)
SIZES = (224,)
LEARNING_RATE = 1e-3


class FusedTrunk(nn.Module):
    """Mini's frozen trunk, and the fusion network on its features at strides 16 and 8."""

    def __init__(self, trunk: Trunk, fusion: Fusion) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False)
        self.fusion = fusion

    def train(self, mode: bool = True) -> FusedTrunk:
        super().train(mode)
        self.trunk.eval()
        return self

    @torch.no_grad()
    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The trunk's semantic and geometric maps of images (B, 3, H, W), ImageNet-normalised."""
        pyramid = self.trunk(images)
        return pyramid[SEMANTIC_STRIDE], pyramid[GEOMETRIC_STRIDE]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """F_s and F_g of images; see `Fusion`."""
        F_s, F_g = self.fusion(*self.features(images))
        return F_s, F_g

    def described(self, images: Tensor) -> Tensor:
        """Unit descriptors (B, C, H / 8, W / 8): both fused maps side by side."""
        return side_by_side(*self(images))

    def joined(self, images: Tensor) -> Tensor:
        """The same of the maps that were fused, with nothing learned."""
        return side_by_side(*self.features(images))


def side_by_side(semantic: Tensor, geometric: Tensor) -> Tensor:
    """Both maps at unit length, the semantic one at the grid of the other, as one map at unit length."""
    semantic = resized(semantic, geometric.shape[-2:])
    return F.normalize(torch.cat([F.normalize(each, dim=1) for each in (geometric, semantic)], dim=1), dim=1)


class FusionTrainable(Trainable):
    """The fusion network, trained at one size in float32."""

    network: FusedTrunk
    clip_norm = 1.0
    frozen = ("trunk.",)

    def __init__(self, options: TrainOptions, device: torch.device, devices: int = 1) -> None:
        sizes = options.sizes or SIZES
        if len(sizes) != 1 or sizes[0] % SEMANTIC_STRIDE or sizes[0] <= 0:
            raise UsageError(f"--sizes of fusion must be one multiple of {SEMANTIC_STRIDE}, such as 224.")
        config = options.config if isinstance(options.config, FusionConfig) else SMALL
        fusion = read_fusion(options.start) if options.start else Fusion(config)
        super().__init__(FusedTrunk(load_mini(EMBEDDED).trunk, fusion).to(device), sizes, "float32")
        self.learning_rate = options.learning_rate or LEARNING_RATE

    def forward(self, batch: Batch, phase: Phase) -> tuple[Tensor, dict[str, Tensor]]:
        images, warp, visible = batch
        F_s, F_g = self.network(normalise(images))
        truth, seen = ground_truth_at(warp, visible, (F_g.shape[2], F_g.shape[3]))
        return fusion_loss(F_s, F_g, truth, seen)

    def phase_at(self, progress: float) -> Phase:
        return Phase(self.sizes[0])

    def rate_at(self, progress: float) -> float:
        return cosine_decay(progress)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.network.fusion.parameters()), "lr": self.learning_rate}]

    def fingerprint(self) -> str:
        return f"{LAYOUT} {self.network.fusion.config}"

    def exported(self, facts: Mapping[str, str]) -> bytes:
        """The network in the layout of MATCHA's published checkpoint, in float32, with its sizes."""
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.network.fusion.state_dict().items()}
        config = json.dumps(asdict(self.network.fusion.config))
        return save(tensors, {"layout": LAYOUT, "config": config, **facts})


def read_fusion(path: Path) -> Fusion:
    """Load a network trained by `romacli train`, to continue training.

    Raises:
        WeightsError: the file is missing or contains something else.
    """
    facts, state = read_weights(path)
    if facts.get("layout") != LAYOUT:
        raise WeightsError(f"{path} contains no fusion network from `romacli train`. Give one, or leave --from out.")
    return Fusion.from_checkpoint(state, config=FusionConfig(**json.loads(facts["config"])), fold=False)
