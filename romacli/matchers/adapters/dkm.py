"""The adapter for DKM's published checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from romacli.matchers.adapter import Adapter
from romacli.networks.dkm import DKM
from romacli.networks.parts.folding import fold_batchnorm
from romacli.networks.weights import read_state_dict
from romacli.types import MatcherSpec


def _load(paths: Sequence[Path], spec: MatcherSpec) -> DKM:
    return DKM.from_checkpoint(read_state_dict(paths[0]))


def _seeded(spec: MatcherSpec) -> DKM:
    network = DKM().eval().requires_grad_(False)
    fold_batchnorm(network)
    return network


ADAPTER = Adapter(_load, _seeded)
