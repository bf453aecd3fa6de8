"""RoMa's published checkpoints behind the matcher's seam."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from romacli.errors import WeightsError
from romacli.matchers.dense import DenseSettings, TwoPassMatcher
from romacli.matchers.device import resolve_device, resolve_dtype
from romacli.matchers.matcher import least_coarse_overlap
from romacli.matchers.options import MatcherOptions
from romacli.matchers.resolution import check_multiple
from romacli.networks.roma import DINOV2_PREFIX, RoMa, checkpoint_name
from romacli.networks.weights import entry_named, locate, read_state_dict, sha256_of, weights_folder

# The reference's defaults; 672 and 1344 are what the paper's evaluation used.
COARSE = (560, 560)
UPSAMPLE = (864, 864)
MIN_CERTAINTY = 0.2
# What coarse overlaps are worth was not measured with the published weights: every pair is refined.
MIN_COARSE_OVERLAP = 0.0
BACKBONE = "dinov2"


def build(options: MatcherOptions, name: str) -> TwoPassMatcher:
    """RoMa with the located checkpoint of that name, or that of `options.weights`.

    Raises:
        WeightsError: a checkpoint is not on this machine, damaged or of another network.
    """
    settings = _settings(options, name)
    weights, backbone = Path(options.weights or _located(name, name)), _located(BACKBONE, name)
    settings = replace(settings, weights_sha256=sha256_of(weights), backbone_sha256=sha256_of(backbone))
    network = RoMa.from_checkpoints(read_state_dict(weights), read_state_dict(backbone))
    return _matcher(network, settings, options)


def build_seeded(options: MatcherOptions, name: str, seed: int) -> TwoPassMatcher:
    """RoMa at its full size with torch's initial weights for a seed."""
    settings = _settings(options, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = RoMa().state_dict()
    roma, dinov2 = (
        {checkpoint_name(key): state[key] for key in state if key.startswith(DINOV2_PREFIX) == of_dinov2}
        for of_dinov2 in (False, True)
    )
    return _matcher(RoMa.from_checkpoints(roma, dinov2), settings, options)


def _settings(options: MatcherOptions, name: str) -> DenseSettings:
    """All but the hashes of the weights."""
    coarse = check_multiple(options.coarse_resolution or COARSE, 14, "--coarse-resolution")
    upsample = check_multiple(options.upsample_resolution or UPSAMPLE, 8, "--upsample-resolution")
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


def _matcher(network: RoMa, settings: DenseSettings, options: MatcherOptions) -> TwoPassMatcher:
    device = resolve_device(options.device)
    network = network.to(device, getattr(torch, settings.dtype)).eval()
    return TwoPassMatcher(network, settings, device=device, autocast=False)


def in_training(network: RoMa) -> TwoPassMatcher:
    """A network without a file as a matcher of one pass, to judge it by."""
    settings = DenseSettings(
        model="roma",
        weights_sha256="",
        coarse_resolution=COARSE,
        upsample_resolution=None,
        min_certainty=MIN_CERTAINTY,
        min_overlap=0.0,
        dtype="float32",
    )
    return TwoPassMatcher(network, settings, device=next(network.parameters()).device, autocast=False)


def _located(entry_name: str, model: str) -> Path:
    entry = entry_named(entry_name)
    path = locate(entry)
    if path is None:
        raise WeightsError(
            f"--model {model} needs {entry.file_name}, which is not on this machine. "
            f"Run `romacli models download {model}`, or fetch {entry.url} elsewhere and place it in "
            f"{weights_folder()} (ROMACLI_WEIGHTS_DIR chooses another folder)."
        )
    return path
