"""The adapter for RoMa's published checkpoints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from romacli.errors import WeightsError
from romacli.matchers.adapter import Adapter, decide
from romacli.matchers.dense import TwoPassMatcher
from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import MATCHERS
from romacli.networks.roma import PUBLISHED, RoMa
from romacli.networks.weights import read_facts, read_state_dict
from romacli.types import MatcherSpec, Size


def _load(paths: Sequence[Path], spec: MatcherSpec) -> RoMa:
    roma, dinov2 = paths
    try:
        config = PUBLISHED.varied(**(json.loads(read_facts(roma).get("parts", "{}")) or PUBLISHED.variation))
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{roma} was built from parts that RoMa does not have here. Train a new one.") from error
    has_dinov2 = config.coarse_encoder == "dinov2"
    return RoMa.from_checkpoints(read_state_dict(roma), read_state_dict(dinov2) if has_dinov2 else {}, config=config)


ADAPTER = Adapter(_load, lambda spec: RoMa(), autocast=False)


def in_training(network: RoMa, *, size: Size | None = None) -> TwoPassMatcher:
    """A single-pass matcher from a network in training, at the given size or its default, for validation."""
    options = MatcherOptions(coarse_resolution=size, upsample=False, min_overlap=0.0, device="cpu", dtype="float32")
    settings = replace(decide(MATCHERS["roma-outdoor"], options), model="roma")
    return TwoPassMatcher(network, settings, device=next(network.parameters()).device, autocast=False)
