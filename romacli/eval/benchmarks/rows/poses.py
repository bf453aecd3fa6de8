"""Relative poses of pairs: MegaDepth, ScanNet, Strecha's scenes, the Image Matching Challenge 2022."""

from __future__ import annotations

from functools import partial

from romacli.eval.benchmarks.benchmark import Benchmark, Evaluation, Published, read_by
from romacli.eval.benchmarks.marked import ChallengeSolver, FundamentalSolver
from romacli.eval.benchmarks.measures import Areas, JointAccuracy
from romacli.eval.benchmarks.rows.sources import QUOTED, REDI, STORAGE
from romacli.eval.benchmarks.solvers import EssentialSolver

_POSE = "the larger of the errors of rotation and translation direction"
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

ROWS = (
    Benchmark(
        "megadepth1500",
        "relative pose outdoors: 1,500 pairs of two landmarks",
        Areas(_POSE, (5, 10, 20), "deg"),
        "\n".join((*(f"{name}.npz" for name in _LISTS), "Undistorted_SfM/{0015,0022}/images/*.jpg")),
        f"{STORAGE}/tag/mega1500 (five npz and megadepth_test_1500.tar)",
        partial(read_by, "data.megadepth", lists=tuple(f"{name}.npz" for name in _LISTS)),
        {
            "roma": _FRESH,
            "one-sample": Evaluation("as earlier releases of romatch", _OUTDOOR, estimates=5),
        },
        pairs=1500,
        published=(
            Published("RoMa v2", (62.8, 77.0, 86.6), f"RoMa v2 paper, table 4 {QUOTED}"),
            Published("RoMa", (62.6, 76.7, 86.3), f"RoMa paper {QUOTED}"),
            Published("DKM v3", (60.4, 74.9, 85.1), f"DKM paper {QUOTED}"),
            Published("Tiny RoMa", (56.4, 69.5, 79.5), "README of RoMa"),
            Published("LoFTR", (52.8, 69.2, 81.2), f"LoFTR paper {QUOTED}"),
            Published("RoMa, 576", (59.56, 74.42, 84.85), REDI),
            Published("RoMa v2, 576", (60.02, 74.77, 85.19), REDI),
        ),
        sizes=_OUTDOOR_SIZES,
    ),
    Benchmark(
        "megadepth8",
        "relative pose outdoors: pairs of eight landmarks",
        Areas(_POSE, (5, 10, 20), "deg"),
        "\n".join(
            (
                "mega_8_scenes_{" + ",".join(_EIGHT) + "}_{0.1_0.3,0.3_0.5}.npz",
                "Undistorted_SfM/SCENE/images/*.jpg of these scenes",
            )
        ),
        "lists as romatch names them; photographs of MegaDepth, undistorted as for D2-Net",
        partial(read_by, "data.megadepth", lists=tuple(f"{name}.npz" for name in _LISTS_OF_EIGHT)),
        {"roma": _FRESH},
        published=(
            Published("RoMa", (62.2, 75.9, 85.3), f"RoMa paper {QUOTED}"),
            Published("DKM v3", (60.5, 74.5, 84.2), f"DKM paper {QUOTED}"),
            Published("Tiny RoMa", (57.7, 70.5, 79.6), "README of RoMa"),
        ),
        sizes=_OUTDOOR_SIZES,
    ),
    Benchmark(
        "scannet1500",
        "relative pose in rooms: 1,500 pairs of frames",
        Areas(_POSE, (5, 10, 20), "deg"),
        "test.npz\nscans_test/sceneNNNN_NN/color/N.jpg\nscans_test/sceneNNNN_NN/intrinsic/intrinsic_color.txt",
        f"{STORAGE}/tag/scannet1500; ScanNet's terms allow non-commercial use only",
        partial(read_by, "data.scannet"),
        {
            "roma": Evaluation("as the DKM and RoMa papers", _INDOOR, estimates=5),
            "romatch": Evaluation(
                "with a fault of romatch's evaluator",
                _INDOOR,
                estimates=5,
                measure=Areas(_POSE, (5, 10, 20), "deg", last_twice=True),
            ),
        },
        pairs=1500,
        published=(
            Published("RoMa v2", (33.6, 56.2, 73.8), f"RoMa v2 paper {QUOTED}"),
            Published("RoMa", (31.8, 53.4, 70.9), f"RoMa paper {QUOTED}"),
            Published("DKM v3", (29.4, 50.7, 68.3), f"DKM paper {QUOTED}"),
            Published("LoFTR", (22.1, 40.8, 57.6), f"LoFTR paper {QUOTED}"),
            Published("RoMa, 576", (30.99, 52.58, 70.19), REDI),
            Published("RoMa v2, 576", (33.27, 55.96, 73.40), REDI),
        ),
        sizes={
            "roma-indoor": ((560, 560), None),
            "roma-v2": ((800, 800), (1024, 1024)),
            "roma-v2.0.0": ((800, 800), (1024, 1024)),
            "dkm-indoor": ((640, 480), None),
        },
    ),
    Benchmark(
        "imc2022",
        "relative pose in metres: pairs of the training scenes of the Image Matching Challenge 2022",
        JointAccuracy(),
        "train/scaling_factors.csv: scene, scaling_factor\n"
        "train/SCENE/calibration.csv: image_id, camera_intrinsics, rotation_matrix, translation_vector\n"
        "train/SCENE/pair_covisibility.csv: pair, covisibility\n"
        "train/SCENE/images/IMAGE_ID.jpg",
        "https://www.kaggle.com/competitions/image-matching-challenge-2022",
        partial(read_by, "data.imc2022"),
        {
            "roma": Evaluation(
                "as the challenge judges, with the solver of RoMa's authors, on pairs that see a tenth of each other",
                ChallengeSolver(FundamentalSolver(0.2, 0.999999, 10_000)),
            )
        },
        published=(
            Published("RoMa", (88.0,), "hidden test; RoMa paper"),
            Published("ASpanFormer", (83.8,), "hidden test"),
            Published("DKM v3", (83.1,), "hidden test"),
            Published("LoFTR", (78.3,), "hidden test"),
        ),
        apart="published figures are of the hidden test, not of these scenes",
    ),
    Benchmark(
        "strecha",
        "relative pose in one of Strecha's scenes: all pairs of its photographs",
        Areas(_POSE, (1, 3, 5, 10, 20), "deg"),
        "images/NAME, photographs\ncameras/NAME.camera: K, 0 0 0, rotation from camera to world, centre, size",
        "Strecha et al., CVPR 2008; https://github.com/openMVG/SfM_quality_evaluation",
        partial(read_by, "data.strecha"),
        {"pairs": Evaluation("as megadepth1500, for none is published for pairs", _OUTDOOR, samples=5)},
    ),
    Benchmark(
        "aachen-pairs",
        "relative pose between pictures of a city by day: 1,500 pairs of Aachen's model",
        Areas(_POSE, (5, 10, 20), "deg"),
        "images/images_upright/{db,sequences}/**\n3D-models/aachen_v_1_1/{aachen_v_1_1.nvm,database_intrinsics*.txt}",
        "https://www.visuallocalization.net/datasets (Aachen Day-Night v1.1)",
        partial(read_by, "places.aachen", read="read_pairs"),
        {
            "pairs": Evaluation(
                "as megadepth1500, for none is published for pairs; lenses undistorted", _OUTDOOR, samples=5
            )
        },
    ),
)
