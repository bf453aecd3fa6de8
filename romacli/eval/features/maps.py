"""Frozen networks that give a map of features, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from romacli.errors import UsageError, WeightsError
from romacli.matchers.dense import normalise
from romacli.networks.weights import load_strictly, read_state_dict


@dataclass(frozen=True)
class FeatureMap:
    """A frozen network.

    multiple: sides of pictures must be multiples of it, px.
    of: from (B, 3, H, W) uint8 RGB to (B, C, h, w) float32.
    """

    name: str
    multiple: int
    of: Callable[[Tensor], Tensor]


def feature_map(word: str, *, seed: int = 0) -> FeatureMap:
    """A feature map by NAME, or NAME=FILE with its weights in a file.

    Raises:
        UsageError: the name is unknown, or it needs a file or takes none.
        WeightsError: the weights are missing or belong to another network.
    """
    name, _, file = word.partition("=")
    if name not in MAPS:
        raise UsageError(f"--features {name} is not known. Known: {', '.join(MAPS)}.")
    return MAPS[name](name, Path(file) if file else None, seed)


def _mini(stride: int, name: str, file: Path | None, seed: int, *, trained: bool = True) -> FeatureMap:
    from romacli.matchers.adapters.mini import EMBEDDED
    from romacli.networks.mini import Mini, load_mini
    from romacli.networks.mini_config import MiniConfig

    if not trained and file is not None:
        raise UsageError(f"--features {name} has random weights. Leave {file} out, or name mini-{stride}.")
    if trained:
        network = load_mini(file or EMBEDDED)
    else:
        torch.manual_seed(seed)
        network = Mini(MiniConfig())
    trunk = network.trunk.eval()
    return FeatureMap(name, 16, lambda images: trunk(normalise(images))[stride].float())


def _xfeat(name: str, file: Path | None, seed: int) -> FeatureMap:
    from romacli.matchers.describers.published import RECIPES, packaged
    from romacli.networks.xfeat import XFeatDetector

    network = XFeatDetector.from_checkpoint(read_state_dict(file or packaged(name, *RECIPES["xfeat"].detector)))
    return FeatureMap(name, 32, lambda images: network(images.float())[1])


def _vgg19(name: str, file: Path | None, seed: int) -> FeatureMap:
    from romacli.networks.backbones.vgg import VGG19

    network = VGG19((64, 128, 256, 512))
    _load(network, _required(name, file, "torchvision's VGG19-BN"), "VGG19-BN", prefix="features.", renamed="layers.")
    return FeatureMap(name, 8, lambda images: list(network(normalise(images)))[-1][1].float())


def _resnet50(name: str, file: Path | None, seed: int) -> FeatureMap:
    from romacli.networks.parts.residual import ResNet50

    network = ResNet50(deepest=16)
    _load(network, _required(name, file, "torchvision's ResNet-50"), "ResNet-50")
    return FeatureMap(name, 32, lambda images: dict(network(normalise(images)))[16].float())


def _dinov2(name: str, file: Path | None, seed: int) -> FeatureMap:
    from romacli.networks.backbones.dinov2 import DINOv2, DINOv2Config

    state = read_state_dict(_required(name, file, "DINOv2's published"))
    if "patch_embed.proj.weight" not in state or "pos_embed" not in state:
        raise WeightsError(f"{file} contains no DINOv2: it lacks patch_embed.proj.weight or pos_embed.")
    dim, _, patch, _ = state["patch_embed.proj.weight"].shape
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    config = DINOv2Config(
        dim=dim, depth=depth, heads=dim // 64, patch=patch, position_side=math.isqrt(state["pos_embed"].shape[1] - 1)
    )
    network = DINOv2(config)
    load_strictly(network, state, str, what="DINOv2")
    return FeatureMap(name, patch, lambda images: network(normalise(images)).float())


MAPS: dict[str, Callable[[str, Path | None, int], FeatureMap]] = {
    "mini-8": partial(_mini, 8),
    "mini-16": partial(_mini, 16),
    "random-8": partial(_mini, 8, trained=False),
    "random-16": partial(_mini, 16, trained=False),
    "xfeat": _xfeat,
    "vgg19": _vgg19,
    "resnet50": _resnet50,
    "dinov2": _dinov2,
}


def _required(name: str, file: Path | None, whose: str) -> Path:
    if file is None:
        raise UsageError(f"--features {name} needs its weights. Give {name}=FILE, {whose} weights.")
    return file


def _load(network: nn.Module, file: Path, what: str, *, prefix: str = "", renamed: str = "") -> None:
    """Load weights from a file with torchvision's names that may contain more layers."""
    state: Mapping[str, Any] = read_state_dict(file)
    wanted = set(network.state_dict())
    found = {renamed + key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    load_strictly(network, {key: value for key, value in found.items() if key in wanted}, str, what=what)
