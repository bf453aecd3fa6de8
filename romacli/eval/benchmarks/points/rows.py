"""The rows of these benchmarks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from romacli.eval.benchmarks.benchmark import Benchmark, read_by
from romacli.eval.benchmarks.measures import Found
from romacli.eval.benchmarks.points.truth import PointEvaluation

_SHARES = (0.01, 0.05, 0.1, 0.15)
# As MATCHA's evaluation resizes pictures.
_HOW: dict[str, Any] = {
    "sizes": {name: ((512, 512), None) for name in ("matcha", "matcha-light", "dift", "dift-dino", "dinov2")},
    "judged_by": "romacli.eval.benchmarks.points.run",
    "draws": False,
    "model": "matcha",
}


def _ways(about: str, measure: Found, *, semantic: bool) -> dict[str, PointEvaluation]:
    return {
        "points": PointEvaluation(about, semantic, measure),
        "pairs": PointEvaluation(about, semantic, replace(measure, each_pair_alike=True)),
    }


_BY_THING = Found(_SHARES, "longer sides of the second thing's box")
_BY_PICTURE = Found(_SHARES, "longer sides of the second picture")
_BY_POINTS = Found(_SHARES, "longer sides of the box about the second picture's points")
_BY_PX = Found((1, 2, 4, 8, 12.8, 16, 25.6, 38.4), "px of a frame of 256x256")


POINT_ROWS = (
    Benchmark(
        "spair71k",
        "points of one thing on another of its kind: 12,234 pairs of 18 kinds",
        _BY_THING,
        "Layout/large/test.txt\nPairAnnotation/test/*.json\nJPEGImages/KIND/*.jpg",
        "https://cvlab.postech.ac.kr/research/SPair-71k",
        partial(read_by, "points.spair"),
        _ways("by the thing's box, as SPair-71k's authors", _BY_THING, semantic=True),
        pairs=12234,
        **_HOW,
    ),
    Benchmark(
        "pf-pascal",
        "points of one thing on another of its kind, in like poses: PASCAL's photographs",
        _BY_PICTURE,
        "PF-dataset-PASCAL/test_pairs_pf_pascal.csv\nPF-dataset-PASCAL/JPEGImages/*.jpg",
        "https://www.di.ens.fr/willow/research/proposalflow and its list at .../cnngeometric/other_resources",
        partial(read_by, "points.proposal_flow", read="read_pascal"),
        _ways("by the picture, as is usual for this set", _BY_PICTURE, semantic=True),
        **_HOW,
    ),
    Benchmark(
        "pf-willow",
        "the same on 900 pairs of ten kinds, ten points each",
        _BY_POINTS,
        "PF-dataset/test_pairs_pf.csv\nPF-dataset/KIND/*.png",
        "https://www.di.ens.fr/willow/research/proposalflow and its list at .../cnngeometric/other_resources",
        partial(read_by, "points.proposal_flow", read="read_willow"),
        _ways("by the box about the points, as is usual for this set", _BY_POINTS, semantic=True),
        pairs=900,
        **_HOW,
    ),
    Benchmark(
        "tapvid-davis",
        "points of a film's first frame in all later ones: 30 films",
        _BY_PX,
        "tapvid_davis.pkl",
        "https://github.com/google-deepmind/tapnet/tree/main/tapnet/tapvid",
        partial(read_by, "points.tapvid"),
        _ways("first frame to later ones, points seen in both", _BY_PX, semantic=False),
        **_HOW,
    ),
)
