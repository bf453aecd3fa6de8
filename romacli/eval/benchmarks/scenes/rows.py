"""The rows of these benchmarks."""

from __future__ import annotations

from functools import partial
from typing import Any

from romacli.eval.benchmarks.benchmark import Benchmark, Published, read_by
from romacli.eval.benchmarks.measures import BagAreas, Means
from romacli.eval.benchmarks.rows.sources import QUOTED
from romacli.eval.benchmarks.scenes.scene import SceneEvaluation

_HOW: dict[str, Any] = {"judged_by": "romacli.eval.benchmarks.scenes.run", "noun": "model"}
_ETH3D = "https://www.eth3d.net/datasets: multi_view_training_dslr_undistorted.7z"
_POSES_OF = "the larger of the errors of rotation and translation direction between two photographs"

SCENE_ROWS = (
    Benchmark(
        "eth3d",
        "points triangulated at known poses against laser scans: 13 scenes",
        Means(
            ("acc 1cm", "acc 2cm", "acc 5cm", "comp 1cm", "comp 2cm", "comp 5cm"),
            "shares of points near the scan (acc) and of the scan near points (comp), means over scenes",
        ),
        "SCENE/images/dslr_images_undistorted/*.JPG\nSCENE/dslr_calibration_undistorted/{cameras,images,points3D}.txt\n"
        "SCENE/dslr_scan_eval/{scan_alignment.mlp,scan*.ply}",
        f"{_ETH3D} and multi_view_training_dslr_scan_eval.7z",
        partial(read_by, "scenes.data", read="read_eth3d", scanned=True),
        {"dfsfm": SceneEvaluation("as the Detector-Free SfM paper", 1600, 12.0, "points", "known")},
        pairs=13,
        published=(
            Published("RoMa", (75.58, 86.25, 94.95, 5.64, 15.73, 38.60), f"Dense-SfM paper {QUOTED}"),
            Published("RoMa + Dense-SfM", (84.79, 92.62, 97.77, 7.38, 17.06, 36.35), f"Dense-SfM paper {QUOTED}"),
            Published("MV-RoMa", (85.88, 92.99, 98.05, 3.95, 9.94, 23.81), f"MV-RoMa paper {QUOTED}"),
        ),
        **_HOW,
    ),
    Benchmark(
        "eth3d-sfm",
        "poses of models of ETH3D's scenes, cameras unknown: 25 scenes",
        BagAreas(_POSES_OF, (1, 3, 5)),
        "SCENE/images/dslr_images_undistorted/*.JPG\nSCENE/dslr_calibration_undistorted/{cameras,images,points3D}.txt",
        f"{_ETH3D} and multi_view_test_dslr_undistorted.7z",
        partial(read_by, "scenes.data", read="read_eth3d", scanned=False),
        {"dfsfm": SceneEvaluation("as the Detector-Free SfM paper", 1600, 4.0, "poses", "shared")},
        pairs=25,
        published=(Published("Dense-SfM", (None, None, 82.63), f"Dense-SfM paper {QUOTED}"),),
        **_HOW,
    ),
    Benchmark(
        "imc2021",
        "poses of models of 5, 10 and 25 tourists' photographs: bags of nine landmarks",
        BagAreas(_POSES_OF, (3, 5, 10), bags=(5, 10, 25)),
        "phototourism/SCENE/set_100/images/*.jpg\nphototourism/SCENE/set_100/calibration/calibration_*.h5\n"
        "phototourism/SCENE/set_100/sub_set/{5,10,25}bag_*.txt",
        "https://www.cs.ubc.ca/research/kmyi_data/imc2021-public/imc-2021-test-gt-phototourism.tar.gz",
        partial(read_by, "scenes.data", read="read_imc2021"),
        {"dfsfm": SceneEvaluation("as the Detector-Free SfM paper", 1200, 4.0, "poses", "own")},
        published=(
            Published("Dense-SfM", (48.48, 60.79, 73.90, None, None, None), f"Dense-SfM paper {QUOTED}"),
            Published("MV-RoMa", (51.31, 62.92, 75.92, None, None, None), f"MV-RoMa paper {QUOTED}"),
        ),
        **_HOW,
    ),
    Benchmark(
        "texture-poor",
        "poses of models of things with hardly any texture, cameras known",
        BagAreas(_POSES_OF, (3, 5, 10)),
        "SCENE/images/*\nSCENE/poses/NAME.txt, 4 x 4 world to camera\nSCENE/intrins/NAME.txt, 3 x 3",
        "https://github.com/zju3dv/DetectorFreeSfM (DATASET_PREPARE.md)",
        partial(read_by, "scenes.data", read="read_posed"),
        {"dfsfm": SceneEvaluation("as the Detector-Free SfM paper", 840, 4.0, "poses", "known")},
        published=(
            Published("Dense-SfM", (49.94, 66.23, 81.41), f"Dense-SfM paper {QUOTED}"),
            Published("MV-RoMa", (51.79, 66.77, 81.74), f"MV-RoMa paper {QUOTED}"),
        ),
        **_HOW,
    ),
)
