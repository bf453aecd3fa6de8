"""Errors of whole warps, with depth maps as truth: MegaDepth and ScanNet."""

from __future__ import annotations

from functools import partial

from romacli.eval.benchmarks.benchmark import Benchmark, Evaluation, Published, read_by
from romacli.eval.benchmarks.dense import DenseReader
from romacli.eval.benchmarks.measures import DenseFigures
from romacli.eval.benchmarks.rows.sources import QUOTED

_SQUARE = Evaluation("at the size of the RoMa v2 paper, each pair counting alike", DenseReader((640, 640)))
_ROMATCH = Evaluation(
    "at the size of romatch's evaluator, each pair counting alike", DenseReader((512, 384)), published=()
)
_UNTOLD = (None, None, None, None)

ROWS = (
    Benchmark(
        "megadepth-dense",
        "dense warps outdoors: 2,000 pairs of two landmarks with depth maps",
        DenseFigures(),
        "prep_scene_info/{0015,0022}.npy\nphotographs and depth maps as these name them, as for training",
        "MegaDepth (https://www.cs.cornell.edu/projects/megadepth), prepared as for D2-Net and DKM",
        partial(read_by, "data.dense", read="read_megadepth"),
        {"roma-v2": _SQUARE, "romatch": _ROMATCH},
        pairs=2000,
        published=(
            Published("RoMa v2", (1.47, *_UNTOLD), f"RoMa v2 paper {QUOTED}"),
            Published("RoMa", (2.34, *_UNTOLD), f"RoMa v2 paper {QUOTED}"),
        ),
    ),
    Benchmark(
        "scannet-dense",
        "dense warps in rooms: the pairs of scannet1500 with depth maps",
        DenseFigures(),
        "as scannet1500, and\nscans_test/sceneNNNN_NN/depth/N.png",
        "as scannet1500; depth maps by ScanNet's own reader",
        partial(read_by, "data.dense", read="read_scannet"),
        {"roma-v2": _SQUARE, "romatch": _ROMATCH},
        pairs=1500,
    ),
)
