"""romacli: dense matching with RoMa for Structure-from-Motion, from photographs to a COLMAP model.

The public names below are imported when they are first used, so that `import romacli` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "AggregateOptions": "romacli.keypoints.aggregate",
    "Aggregation": "romacli.keypoints.aggregate",
    "CompactWarp": "romacli.types",
    "Correspondences": "romacli.types",
    "DenseMatch": "romacli.types",
    "Features": "romacli.types",
    "ImageList": "romacli.types",
    "Keypoints": "romacli.types",
    "MatchOptions": "romacli.pipeline.match",
    "MatchSummary": "romacli.pipeline.match",
    "Matcher": "romacli.matching.matcher",
    "MatcherOptions": "romacli.matching.matcher",
    "Matches": "romacli.types",
    "PairList": "romacli.types",
    "PreparedImage": "romacli.types",
    "Progress": "romacli.pipeline.progress",
    "Rejected": "romacli.types",
    "RomacliError": "romacli.errors",
    "SampleOptions": "romacli.matching.sampling",
    "Schedule": "romacli.types",
    "StopRequest": "romacli.pipeline.stop",
    "TwoView": "romacli.pipeline.two_view",
    "aggregate": "romacli.keypoints.aggregate",
    "list_images": "romacli.images.listing",
    "load_matcher": "romacli.matching.registry",
    "match_images": "romacli.pipeline.match",
    "match_two": "romacli.pipeline.two_view",
    "pair_seed": "romacli.matching.matcher",
    "plan": "romacli.pipeline.schedule",
    "read_image": "romacli.images.decode",
    "sample": "romacli.matching.sampling",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'romacli' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
