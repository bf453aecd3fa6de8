"""Build a matcher from a row of the registry and its adapter: settings, files, device and precision.

An adapter is a module with an `ADAPTER`, which defines how its network is loaded and how its inputs are made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from romacli.errors import UsageError, WeightsError
from romacli.matchers.dense import DenseSettings, TwoPassMatcher, normalise, resize
from romacli.matchers.device import resolve_device, resolve_dtype
from romacli.matchers.matcher import EITHER_DTYPE, least_coarse_overlap
from romacli.matchers.options import MatcherOptions
from romacli.matchers.resolution import check_multiple
from romacli.networks.parts.folding import fold_batchnorm
from romacli.networks.weights import locate, sha256_of, weights_folder
from romacli.types import Defaults, MatcherSpec, Size


@dataclass(frozen=True)
class Adapter:
    """The network-specific parts of a `TwoPassMatcher`.

    load: builds the network from its row's files and the row itself; raises WeightsError for other files.
    seeded: builds the network at full size with torch's initial weights, from the row; not yet for inference.
    resize, normalise: as for `TwoPassMatcher`.
    autocast: run the network under torch's autocast; otherwise it is converted to the working precision.
    """

    load: Callable[[Sequence[Path], MatcherSpec], Any]
    seeded: Callable[[MatcherSpec], Any]
    resize: Callable[[np.ndarray, Size], Tensor] = resize
    normalise: Callable[[Tensor], Tensor] = normalise
    autocast: bool = True


def build(adapter: Adapter, spec: MatcherSpec, options: MatcherOptions) -> TwoPassMatcher:
    """Build a matcher from local checkpoints, with `options.weights` in place of the first.

    Raises:
        UsageError: a size, preset or number type that the matcher does not support.
        WeightsError: a checkpoint is not on this machine, damaged or of another network.
    """
    settings = decide(spec, options)
    paths = [located(spec, index, options) for index in range(len(spec.weights))]
    weights, *backbone = map(sha256_of, paths)
    settings = replace(settings, weights_sha256=weights, backbone_sha256=backbone[0] if backbone else None)
    return _matcher(adapter, adapter.load(paths, spec), settings, options, spec)


def build_seeded(adapter: Adapter, spec: MatcherSpec, options: MatcherOptions, seed: int) -> TwoPassMatcher:
    """The same with initial weights from a seed; their coarse overlaps are meaningless, so all pairs are refined."""
    settings = replace(decide(spec, options), min_coarse_overlap=least_coarse_overlap(options, 0.0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = adapter.seeded(spec).eval().requires_grad_(False)
    fold_batchnorm(network)
    network = network.to(memory_format=torch.channels_last)
    return _matcher(adapter, network, settings, options, spec)


def _matcher(
    adapter: Adapter, network: Any, settings: DenseSettings, options: MatcherOptions, spec: MatcherSpec
) -> TwoPassMatcher:
    device = resolve_device(options.device)
    by_cpu = options.dtype == "auto" and device.type == "cpu" and _defaults(spec).bfloat16_on_cpu
    network = network.to(device) if adapter.autocast else network.to(device, getattr(torch, settings.dtype))
    network = network.eval()
    return TwoPassMatcher(
        network,
        replace(settings, mirrored=getattr(network, "looks_mirrored", None) or None),
        device=device,
        autocast=adapter.autocast,
        in_either_dtype=by_cpu or options.dtype == EITHER_DTYPE,
        resize=adapter.resize,
        normalise=adapter.normalise,
    )


def decide(spec: MatcherSpec, options: MatcherOptions) -> DenseSettings:
    """All values that results depend on, except the hashes of the weights.

    Raises:
        UsageError: see `build`.
    """
    defaults = _defaults(spec)
    coarse, upsample = _sizes(spec.name, defaults, options)
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device, bfloat16_on_cpu=defaults.bfloat16_on_cpu)
    return DenseSettings(
        model=spec.name,
        weights_sha256="",
        coarse_resolution=coarse,
        upsample_resolution=upsample,
        min_certainty=defaults.min_certainty if options.min_certainty is None else options.min_certainty,
        min_overlap=options.min_overlap,
        dtype=str(dtype).removeprefix("torch."),
        min_coarse_overlap=least_coarse_overlap(options, defaults.min_coarse_overlap),
    )


def _defaults(spec: MatcherSpec) -> Defaults:
    assert spec.defaults is not None, f"{spec.name} has no defaults"
    return spec.defaults


def _sizes(name: str, defaults: Defaults, options: MatcherOptions) -> tuple[Size, Size | None]:
    """The sizes of both passes: as given, else from the preset, else the matcher's defaults."""
    coarse, upsample = defaults.coarse, defaults.upsample
    if options.preset is not None:
        if options.preset not in defaults.presets:
            has = f"Choose from: {', '.join(defaults.presets)}" if defaults.presets else "It has none: give sizes"
            raise UsageError(f"--preset {options.preset} is not known to model {name}. {has}.")
        coarse, upsample = defaults.presets[options.preset]
    if options.upsample_resolution is not None and not defaults.upsample_step:
        raise UsageError(f"model {name} has no second pass. Leave --upsample-resolution out.")
    coarse = options.coarse_resolution or coarse
    upsample = (options.upsample_resolution or upsample) if options.upsample else None
    check_multiple(coarse, defaults.coarse_step, "--coarse-resolution")
    check_multiple(upsample, defaults.upsample_step, "--upsample-resolution")
    for option, size in (("--coarse-resolution", coarse), ("--upsample-resolution", upsample)):
        if size is not None and min(size) < defaults.smallest:
            raise UsageError(f"{option} {size[0]}x{size[1]} is too small: model {name} needs {defaults.smallest} px.")
    return coarse, upsample


def located(spec: MatcherSpec, index: int, options: MatcherOptions | None = None) -> Path:
    """The local file of one of a row's checkpoints.

    Raises:
        WeightsError: it is not on this machine; the message says how to get it.
    """
    if index == 0 and options is not None and options.weights is not None:
        return Path(options.weights)
    entry = spec.weights[index]
    if (path := locate(entry)) is None:
        raise WeightsError(
            f"--model {spec.name} needs {entry.file_name}, which is not on this machine. "
            f"Run `romacli models download {spec.name}`, or fetch {entry.url} elsewhere and place it in "
            f"{weights_folder()} (set ROMACLI_WEIGHTS_DIR for another folder)."
        )
    return path
