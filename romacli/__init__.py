"""romacli: dense matching with RoMa for Structure-from-Motion, from photographs to a COLMAP model.

The public names below are imported when they are first used, so that `import romacli` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "AggregateOptions": "romacli.keypoints.options",
    "Aggregation": "romacli.keypoints.aggregate",
    "CompactWarp": "romacli.types",
    "Correspondences": "romacli.types",
    "DenseMatch": "romacli.types",
    "Features": "romacli.types",
    "ImageList": "romacli.types",
    "Keypoints": "romacli.types",
    "MatchOptions": "romacli.run.options",
    "MatchSummary": "romacli.run.match",
    "Matcher": "romacli.matchers.matcher",
    "MatcherOptions": "romacli.matchers.options",
    "Matches": "romacli.types",
    "PairList": "romacli.types",
    "PreparedImage": "romacli.types",
    "Progress": "romacli.progress",
    "Rejected": "romacli.types",
    "RomacliError": "romacli.errors",
    "SampleOptions": "romacli.matchers.sampling",
    "Schedule": "romacli.types",
    "StopRequest": "romacli.stop",
    "TwoView": "romacli.two_view",
    "aggregate": "romacli.keypoints.aggregate",
    "list_images": "romacli.images.listing",
    "load_matcher": "romacli.matchers.registry",
    "match_images": "romacli.run.match",
    "match_two": "romacli.two_view",
    "pair_seed": "romacli.matchers.matcher",
    "plan": "romacli.run.schedule",
    "read_image": "romacli.images.decode",
    "sample": "romacli.matchers.sampling",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'romacli' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
