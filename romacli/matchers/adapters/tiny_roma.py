"""The adapter for Tiny RoMa's published checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from romacli.matchers.adapter import Adapter
from romacli.networks.parts.folding import fold_batchnorm
from romacli.networks.tiny_roma import TinyRoMa
from romacli.networks.weights import read_state_dict
from romacli.types import MatcherSpec


def _load(paths: Sequence[Path], spec: MatcherSpec) -> TinyRoMa:
    return TinyRoMa.from_checkpoint(read_state_dict(paths[0]))


def _seeded(spec: MatcherSpec) -> TinyRoMa:
    network = TinyRoMa().eval().requires_grad_(False)
    fold_batchnorm(network)
    return network


def _in_unit_range(image: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 as float32 in [0, 1]; the network normalises by itself."""
    return image.float() / 255


ADAPTER = Adapter(_load, _seeded, normalise=_in_unit_range)
