"""The benchmarks by name: a row each."""

from __future__ import annotations

from functools import partial
from typing import Any

from romacli.errors import UsageError
from romacli.eval.benchmarks.benchmark import Benchmark, Evaluation, Published, read_by
from romacli.eval.benchmarks.points.rows import POINT_ROWS
from romacli.eval.benchmarks.solvers import EssentialSolver, HomographySolver

STORAGE = "https://github.com/Parskatt/storage/releases"
_ROMA2, _REDI = "table 4 of the RoMa v2 paper", "table of the REDI-Match paper, all at 576x576"
_POSE = "AUC of the larger of the errors of rotation and translation direction"
_OUTDOOR = EssentialSolver("long", 1200)
_INDOOR = EssentialSolver("short", 480, shift=0.5)


_OUTDOOR_SIZES = {
    "roma-outdoor": ((672, 672), (1344, 1344)),
    "roma-v2": ((800, 800), (1024, 1024)),
    "roma-v2.0.0": ((800, 800), (1024, 1024)),
    "dkm-outdoor": ((880, 660), (1536, 1152)),
}
_LISTS = ("0015_0.1_0.3", "0015_0.3_0.5", "0022_0.1_0.3", "0022_0.3_0.5", "0022_0.5_0.7")
_EIGHT = ("0008", "0019", "0021", "0024", "0025", "0032", "0063", "1589")
_LISTS_OF_EIGHT = tuple(f"mega_8_scenes_{scene}_{overlap}" for scene in _EIGHT for overlap in ("0.1_0.3", "0.3_0.5"))
_FRESH = Evaluation("as the DKM and RoMa papers", _OUTDOOR, samples=5)

BENCHMARKS = {
    row.name: row
    for row in (
        Benchmark(
            "megadepth1500",
            "relative pose outdoors: 1,500 pairs of two landmarks",
            _POSE,
            (5, 10, 20),
            "deg",
            "\n".join((*(f"{name}.npz" for name in _LISTS), "Undistorted_SfM/{0015,0022}/images/*.jpg")),
            f"{STORAGE}/tag/mega1500 (five npz and megadepth_test_1500.tar)",
            partial(read_by, "megadepth", lists=tuple(f"{name}.npz" for name in _LISTS)),
            {
                "roma": _FRESH,
                "one-sample": Evaluation("as earlier releases of romatch", _OUTDOOR, estimates=5),
            },
            pairs=1500,
            published=(
                Published("RoMa v2", (62.8, 77.0, 86.6), _ROMA2),
                Published("RoMa", (62.6, 76.7, 86.3), "RoMa paper"),
                Published("DKM v3", (60.4, 74.9, 85.1), "DKM paper"),
                Published("Tiny RoMa", (56.4, 69.5, 79.5), "README of RoMa"),
                Published("LoFTR", (52.8, 69.2, 81.2), "LoFTR paper"),
                Published("RoMa, 576", (59.56, 74.42, 84.85), _REDI),
                Published("RoMa v2, 576", (60.02, 74.77, 85.19), _REDI),
            ),
            sizes=_OUTDOOR_SIZES,
        ),
        Benchmark(
            "megadepth8",
            "relative pose outdoors: pairs of eight landmarks",
            _POSE,
            (5, 10, 20),
            "deg",
            "\n".join(
                (
                    "mega_8_scenes_{" + ",".join(_EIGHT) + "}_{0.1_0.3,0.3_0.5}.npz",
                    "Undistorted_SfM/SCENE/images/*.jpg of these scenes",
                )
            ),
            f"{STORAGE} (npz); photographs of MegaDepth, undistorted as for D2-Net",
            partial(read_by, "megadepth", lists=tuple(f"{name}.npz" for name in _LISTS_OF_EIGHT)),
            {"roma": _FRESH},
            published=(
                Published("RoMa", (62.2, 75.9, 85.3), "RoMa paper"),
                Published("DKM v3", (60.5, 74.5, 84.2), "DKM paper"),
                Published("Tiny RoMa", (57.7, 70.5, 79.6), "README of RoMa"),
            ),
            sizes=_OUTDOOR_SIZES,
        ),
        Benchmark(
            "scannet1500",
            "relative pose in rooms: 1,500 pairs of frames",
            _POSE,
            (5, 10, 20),
            "deg",
            "test.npz\nscans_test/sceneNNNN_NN/color/N.jpg\nscans_test/sceneNNNN_NN/intrinsic/intrinsic_color.txt",
            f"{STORAGE}/tag/scannet1500; ScanNet's terms allow non-commercial use only",
            partial(read_by, "scannet"),
            {
                "roma": Evaluation("as the DKM and RoMa papers", _INDOOR, estimates=5),
                "romatch": Evaluation("with a fault of romatch's evaluator", _INDOOR, estimates=5, last_twice=True),
            },
            pairs=1500,
            published=(
                Published("RoMa v2", (33.6, 56.2, 73.8), "RoMa v2 paper"),
                Published("RoMa", (31.8, 53.4, 70.9), "RoMa paper"),
                Published("DKM v3", (29.4, 50.7, 68.3), "DKM paper"),
                Published("LoFTR", (22.1, 40.8, 57.6), "LoFTR paper"),
                Published("RoMa, 576", (30.99, 52.58, 70.19), _REDI),
                Published("RoMa v2, 576", (33.27, 55.96, 73.40), _REDI),
            ),
            sizes={
                "roma-indoor": ((560, 560), None),
                "roma-v2": ((800, 800), (1024, 1024)),
                "roma-v2.0.0": ((800, 800), (1024, 1024)),
                "dkm-indoor": ((640, 480), None),
            },
        ),
        Benchmark(
            "hpatches",
            "homographies under changes of light and viewpoint: 540 pairs of 108 sequences",
            "AUC of the mean error of four corners",
            (3, 5, 10),
            "px of a short side of 480",
            "hpatches-sequences-release/{i_*,v_*}/{1..6}.ppm\nhpatches-sequences-release/{i_*,v_*}/{H_1_2..H_1_6}",
            "https://github.com/hpatches/hpatches-dataset (full sequences)",
            partial(read_by, "hpatches"),
            {"roma": Evaluation("as DKM and RoMa", HomographySolver())},
            pairs=540,
            published=(
                Published("RoMa, 576", (70.35, 79.88, 88.20), _REDI),
                Published("RoMa v2, 576", (70.74, 80.36, 89.03), _REDI),
                Published("DKM v3, 576", (71.33, 80.40, 88.42), _REDI),
                Published("UFM, 576", (58.60, 70.44, 82.40), _REDI),
            ),
        ),
        Benchmark(
            "strecha",
            "relative pose in one of Strecha's scenes: all pairs of its photographs",
            _POSE,
            (1, 3, 5, 10, 20),
            "deg",
            "images/NAME, photographs\ncameras/NAME.camera: K, 0 0 0, rotation from camera to world, centre, size",
            "Strecha et al., CVPR 2008; https://github.com/openMVG/SfM_quality_evaluation",
            partial(read_by, "strecha"),
            {"pairs": Evaluation("as megadepth1500, for none is published for pairs", _OUTDOOR, samples=5)},
        ),
        *POINT_ROWS,
    )
}


def evaluation_named(benchmark: Benchmark, name: str | None) -> tuple[str, Any]:
    """A protocol of a benchmark with its name, the usual one for None.

    Raises:
        UsageError: it has no such one.
    """
    known = benchmark.evaluations
    name = name or next(iter(known))
    if name not in known:
        raise UsageError(f"--protocol {name} is not known to {benchmark.name}. Choose from: {', '.join(known)}.")
    return name, known[name]
