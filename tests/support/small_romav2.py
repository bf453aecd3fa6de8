"""A RoMa v2 small enough to build and run in milliseconds, with seeded weights."""

from __future__ import annotations

import torch
from support.seeded_relatives import seeded_relative
from torch import Tensor

from romacli.networks.backbones.dinov3 import DINOv3Config
from romacli.networks.parts.pyramid import Level
from romacli.networks.romav2 import RoMaV2, RoMaV2Config, checkpoint_name

SMALL = RoMaV2Config(
    dinov3=DINOv3Config(dim=32, depth=3, heads=2, read=(0, 1)),
    view_dim=32,
    view_depth=2,
    view_heads=2,
    head_channels=(8, 8, 12, 12),
    head_width=16,
    levels=(Level(4, 12, 8, 6, 1), Level(2, 10, 6, 4, 1), Level(1, 8, 4, 3)),
    refiner_blocks=2,
)


def small_checkpoint(config: RoMaV2Config = SMALL) -> dict[str, Tensor]:
    """A state dict under the published names."""
    with torch.device("meta"):
        net = RoMaV2(config, release="2.0.1")
    layout = {checkpoint_name(name): tuple(value.shape) for name, value in net.state_dict().items()}
    layout |= {f"f.{name}": shape for name, shape in net.dinov3.unread().items()}
    return seeded_relative(layout, group="romav2")


def small_romav2(release: str = "2.0.1", *, fold: bool = True) -> RoMaV2:
    """A small network as `from_checkpoint` builds it."""
    return RoMaV2.from_checkpoint(small_checkpoint(), release=release, config=SMALL, fold=fold)
