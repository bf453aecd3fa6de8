"""The embedded model behind the matcher's seam."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from romacli import networks
from romacli.matchers.dense import DenseSettings, TwoPassMatcher
from romacli.matchers.device import resolve_device, resolve_dtype
from romacli.matchers.matcher import least_coarse_overlap
from romacli.matchers.options import MatcherOptions
from romacli.matchers.resolution import check_multiple
from romacli.networks.mini import Mini, load_mini, without_batch_norm
from romacli.networks.weights import sha256_of

COARSE = (256, 256)
# The second pass gave the largest gain measured on real photographs at no cost in training.
UPSAMPLE = (640, 640)
# The network is overconfident away from what it was trained on: cells below one half did more harm than good.
MIN_CERTAINTY = 0.5
# Of rendered walks and photographs it keeps every pair that overlaps by 0.1; twice of it loses one of 283.
MIN_COARSE_OVERLAP = 0.005

EMBEDDED = Path(networks.__file__).parent / "mini.safetensors"


def build(options: MatcherOptions, name: str = "mini") -> TwoPassMatcher:
    """The small model with the weights in the package, or those of `options.weights`."""
    weights = Path(options.weights or EMBEDDED)
    settings = replace(_settings(options, name), weights_sha256=sha256_of(weights))
    return _matcher(load_mini(weights), settings, options)


def build_seeded(options: MatcherOptions, name: str, seed: int) -> TwoPassMatcher:
    """The small model with torch's initial weights for a seed, whose coarse overlaps say nothing: all is refined."""
    settings = replace(_settings(options, name), min_coarse_overlap=least_coarse_overlap(options, 0.0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Mini()
    return _matcher(without_batch_norm(network.eval()), settings, options)


def _settings(options: MatcherOptions, name: str) -> DenseSettings:
    """All but the hash of the weights."""
    coarse = check_multiple(options.coarse_resolution or COARSE, 16, "--coarse-resolution")
    upsample = check_multiple(options.upsample_resolution or UPSAMPLE, 16, "--upsample-resolution")
    dtype = resolve_dtype(options.dtype, resolve_device(options.device))
    return DenseSettings(
        model=name,
        weights_sha256="",
        coarse_resolution=coarse,
        upsample_resolution=upsample if options.upsample else None,
        min_certainty=MIN_CERTAINTY if options.min_certainty is None else options.min_certainty,
        min_overlap=options.min_overlap,
        dtype=str(dtype).removeprefix("torch."),
        min_coarse_overlap=least_coarse_overlap(options, MIN_COARSE_OVERLAP),
    )


def _matcher(network: Mini, settings: DenseSettings, options: MatcherOptions) -> TwoPassMatcher:
    device = resolve_device(options.device)
    return TwoPassMatcher(network.to(device).eval(), settings, device=device, autocast=True)
