"""The matchers by name: a literal table, each imported when it is asked for, and those other packages bring."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import import_module
from importlib.metadata import entry_points

from romacli.errors import UsageError
from romacli.matchers.matcher import Matcher
from romacli.matchers.options import DEFAULT, MatcherOptions
from romacli.types import MatcherSpec

ENTRY_POINTS = "romacli.matchers"


_ADAPTERS = {
    "mini": "romacli.matchers.mini",
    "roma-outdoor": "romacli.matchers.roma",
    "roma-indoor": "romacli.matchers.roma",
}


def _build(options: MatcherOptions, name: str) -> Matcher:
    matcher: Matcher = import_module(_ADAPTERS[name]).build(options, name)
    return matcher


MATCHERS = {
    spec.name: spec
    for spec in (
        MatcherSpec(
            "mini",
            _build,
            "the embedded small model: no download, quick on a CPU, moderate baselines",
            "MIT",
            ("mini",),
        ),
        MatcherSpec(
            "roma-outdoor",
            _build,
            "RoMa trained on MegaDepth: the most robust, wants a GPU",
            "MIT (DINOv2: Apache-2.0)",
            ("roma-outdoor", "dinov2"),
        ),
        MatcherSpec(
            "roma-indoor",
            _build,
            "RoMa trained on ScanNet, for rooms",
            "MIT code, but trained on ScanNet: non-commercial use only (DINOv2: Apache-2.0)",
            ("roma-indoor", "dinov2"),
        ),
    )
}


def matchers() -> dict[str, MatcherSpec]:
    """Every matcher by name, the built-in ones first."""
    found = dict(MATCHERS)
    for point in entry_points(group=ENTRY_POINTS):
        found.setdefault(point.name, point.load())
    return found


def matcher_named(name: str) -> MatcherSpec:
    """The row of that name.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    known = matchers()
    if name not in known:
        raise UsageError(f"model {name} is not known. Choose from: {', '.join(known)}.")
    return known[name]


def load_matcher(name: str | None = None, options: MatcherOptions | None = None) -> Matcher:
    """Build the matcher of that name; by default the commands' own, ROMACLI_MODEL or else mini.

    Raises:
        UsageError: no such matcher.
        WeightsError: its checkpoint is missing, damaged or of another model.
    """
    name = name or os.environ.get("ROMACLI_MODEL") or DEFAULT
    matcher: Matcher = matcher_named(name).factory(options or MatcherOptions(), name)
    return matcher


def load_seeded(name: str, options: MatcherOptions | None = None, *, seed: int = 0) -> Matcher:
    """Build a matcher at its full size with weights from a seed: for timing, since what it matches means nothing.

    It rejects no pair, whatever `options.min_overlap`: its warps would decide by chance.

    Raises:
        UsageError: no such matcher, or one of another package.
    """
    if matcher_named(name).name not in _ADAPTERS:
        raise UsageError(f"model {name} cannot be built without its checkpoint. Choose from: {', '.join(_ADAPTERS)}.")
    options = replace(options or MatcherOptions(), min_overlap=0.0)
    matcher: Matcher = import_module(_ADAPTERS[name]).build_seeded(options, name, seed)
    return matcher
