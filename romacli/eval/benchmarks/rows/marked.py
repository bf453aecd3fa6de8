"""Homographies, and estimates evaluated by hand-marked points: HPatches, SatAst, WxBS, HardMatch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from romacli.eval.benchmarks.benchmark import Benchmark, Evaluation, Published, read_by
from romacli.eval.benchmarks.marked import FundamentalSolver, MarkedHomographySolver, MarkedWarps
from romacli.eval.benchmarks.measures import Areas, Shares
from romacli.eval.benchmarks.rows.sources import QUOTED, REDI, STORAGE
from romacli.eval.benchmarks.solvers import HomographySolver

_EPIPOLAR = "marked points near their epipolar lines"
_TEN = tuple(range(1, 11))
_WITH_ZERO = Shares(_EPIPOLAR, tuple(range(11)))
_LOMA = Evaluation(
    "with faults of LoMa's script: the mean is over 0 px too, which nothing reaches, and pairs without estimate count "
    "as a sideways motion",
    FundamentalSolver(sideways=True),
    measure=_WITH_ZERO,
)
_MARKED_LAYOUT = "GROUP/PAIR/{01,02}.png (or .jpg)\nGROUP/PAIR/corrs.txt, rows x0 y0 x1 y1 in px"


def _mean(method: str, figure: float, source: str) -> Published:
    return Published(method, (figure, None, None, None, None), source)


def _somewhere(method: str, figures: str) -> Published:
    return Published(
        method, (None,) * 4, f"{figures} at three thresholds, not said which; table of the REDI-Match paper"
    )


ROWS = (
    Benchmark(
        "hpatches",
        "homographies under changes of light and viewpoint: 540 pairs of 108 sequences",
        Areas("the mean error of four corners", (3, 5, 10), "px of a short side of 480"),
        "hpatches-sequences-release/{i_*,v_*}/{1..6}.ppm\nhpatches-sequences-release/{i_*,v_*}/{H_1_2..H_1_6}",
        "https://github.com/hpatches/hpatches-dataset (full sequences)",
        partial(read_by, "data.hpatches"),
        {"roma": Evaluation("as DKM and RoMa", HomographySolver())},
        pairs=540,
        published=(
            Published("RoMa, 576", (70.35, 79.88, 88.20), REDI),
            Published("RoMa v2, 576", (70.74, 80.36, 89.03), REDI),
            Published("DKM v3, 576", (71.33, 80.40, 88.42), REDI),
            Published("UFM, 576", (58.60, 70.44, 82.40), REDI),
        ),
    ),
    Benchmark(
        "satast",
        "homographies between photographs by astronauts and satellite pictures: points of some 40 pairs",
        Areas("the error of all marked points", (5, 10, 20, 30), "px"),
        "annotations-v1/*.json: query_path, pred_path, correspondences\ndata/IMAGE/*.jpg, as these name them",
        "https://github.com/georg-bn/satast (its download_images.sh fetches the pictures)",
        partial(read_by, "data.satast"),
        {
            "roma-v2": Evaluation(
                "as the script of RoMa v2's authors, which turns no picture for this measure",
                MarkedHomographySolver(),
                points=10_000,
            ),
            "warp": Evaluation(
                "as the same script's other measure, but for the compression of the second picture as JPEG",
                MarkedWarps(both=False),
                quarters=(0, 1, 2, 3),
                published=(),
            ),
        },
        published=(
            _somewhere("RoMa v2", "18.4, 24.2, 28.5"),
            _somewhere("LoMa-R", "27.4, 42.0, 51.7"),
            _somewhere("REDI", "41.3, 50.6, 57.4"),
            _somewhere("RoMa, turned in training", "14.1, 19.0, 22.1"),
        ),
    ),
    Benchmark(
        "wxbs",
        "epipolar geometry under wide changes of view, light, season and sensor: pairs with marked points",
        Shares(_EPIPOLAR, _TEN),
        f"{_MARKED_LAYOUT}\nthe pairs kyiv_dolltheater2 and petrzin are for validation, and left out",
        f"{STORAGE}/tag/wxbs (WxBS_v1.1.zip)",
        partial(read_by, "data.wxbs"),
        {
            "roma": Evaluation(
                "as the RoMa paper; the solver is LoMa's, for the paper's is not published",
                FundamentalSolver(),
                published=(
                    _mean("RoMa", 80.1, f"RoMa paper {QUOTED}"),
                    _mean("DKM v3", 58.9, f"RoMa paper {QUOTED}"),
                    _mean("LoFTR", 55.4, f"RoMa paper {QUOTED}"),
                ),
            ),
            "warp": Evaluation(
                "as the RoMa v2 paper; which thresholds its mean is over is not published",
                MarkedWarps(),
                measure=Shares("marked points near their partners", _TEN),
                published=(
                    _mean("RoMa", 60.8, f"RoMa v2 paper {QUOTED}"),
                    _mean("RoMa v2", 55.4, f"RoMa v2 paper {QUOTED}"),
                ),
            ),
            "loma": replace(
                _LOMA,
                published=(
                    _mean("LoMa-B", 68.76, "README of LoMa"),
                    _mean("RoMa v2", 64.8, f"RoMa-Omega paper {QUOTED}"),
                    _mean("RoMa-Omega", 72.9, f"RoMa-Omega paper {QUOTED}"),
                ),
            ),
        },
    ),
    Benchmark(
        "hardmatch",
        "epipolar geometry of hard pairs: 1,000 with points marked by hand, in 100 groups",
        Shares(_EPIPOLAR, _TEN),
        f"{_MARKED_LAYOUT}\nas in WxBS, for the release's own layout was not at hand",
        "https://github.com/davnords/HardMatch",
        partial(read_by, "data.wxbs"),
        {
            "plain": Evaluation("as wxbs, without the script's faults", FundamentalSolver(), published=()),
            "loma": replace(
                _LOMA,
                published=(
                    _mean("RoMa v2", 46.5, f"RoMa-Omega paper {QUOTED}"),
                    _mean("RoMa-Omega", 50.0, f"RoMa-Omega paper {QUOTED}"),
                ),
            ),
        },
        pairs=1000,
    ),
)
