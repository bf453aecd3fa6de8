"""The adapter for the embedded model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from romacli import networks
from romacli.matchers.adapter import Adapter
from romacli.networks.mini import Mini, load_mini, without_batch_norm
from romacli.types import MatcherSpec

EMBEDDED = Path(networks.__file__).parent / "mini.safetensors"


def _load(paths: Sequence[Path], spec: MatcherSpec) -> Mini:
    return load_mini(paths[0])


def _seeded(spec: MatcherSpec) -> Mini:
    return without_batch_norm(Mini().eval())


ADAPTER = Adapter(_load, _seeded)
