"""A RoMa small enough to build and run in milliseconds, with random weights that exercise every part."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from romacli.matchers.dense import DenseSettings, TwoPassMatcher
from romacli.networks.backbones.dinov2 import DINOv2Config
from romacli.networks.parts.pyramid import Level
from romacli.networks.roma import RoMa, RoMaConfig, checkpoint_name

SMALL = RoMaConfig(
    dinov2=DINOv2Config(dim=16, depth=2, heads=2, position_side=5),
    levels=(
        Level(16, 16, 12, 6, 2),
        Level(8, 12, 10, 5, 1),
        Level(4, 10, 8, 4, 1),
        Level(2, 8, 6, 3),
        Level(1, 6, 4, 2),
    ),
    basis_channels=12,
    decoder_depth=1,
    decoder_heads=2,
    anchors_per_side=8,
    refiner_blocks=2,
)


def small_checkpoints(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """RoMa's and DINOv2's state dicts for the small network, under the published names."""
    generator = torch.Generator().manual_seed(seed)
    net = RoMa(SMALL)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2, generator=generator)
            nn.init.uniform_(module.running_var, 0.3, 2, generator=generator)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.5 * (parameter[0].numel()) ** -0.5, generator=generator)
        else:
            nn.init.uniform_(parameter, 0.2, 1, generator=generator)
    state = net.state_dict()
    roma = {checkpoint_name(name): value for name, value in state.items() if not name.startswith("dinov2.")}
    dinov2 = {checkpoint_name(name): value for name, value in state.items() if name.startswith("dinov2.")}
    return roma, dinov2


def small_roma(**options: bool) -> RoMa:
    """A small network as `from_checkpoints` builds it."""
    return RoMa.from_checkpoints(*small_checkpoints(), config=SMALL, **options)


def random_images(batch: int, shape: tuple[int, int], seed: int = 1) -> Tensor:
    """(batch, 3, H, W) normally distributed values."""
    return torch.randn(batch, 3, *shape, generator=torch.Generator().manual_seed(seed))


def small_matcher(dtype: torch.dtype = torch.float32, **changed: object) -> TwoPassMatcher:
    """A matcher of the small network, without thresholds."""
    settings = {
        "model": "small",
        "weights_sha256": "0",
        "coarse_resolution": (70, 56),
        "upsample_resolution": (96, 80),
        "min_certainty": 0.0,
        "min_overlap": 0.0,
        "dtype": str(dtype).removeprefix("torch."),
        **changed,
    }
    network = small_roma().to(dtype).eval()
    return TwoPassMatcher(network, DenseSettings(**settings), device=torch.device("cpu"), autocast=False)


def photographs(count: int) -> list[np.ndarray]:
    """Noise, RGB uint8 (H, 90, 3), each 10 px higher than the last."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (60 + 10 * index, 90, 3), np.uint8) for index in range(count)]
