"""The rows of these benchmarks."""

from __future__ import annotations

from functools import partial

from romacli.eval.benchmarks.benchmark import Benchmark, Published, read_by
from romacli.eval.benchmarks.measures import Posed
from romacli.eval.benchmarks.places.evaluation import CityEvaluation, PlaceEvaluation
from romacli.eval.benchmarks.rows.sources import QUOTED

_WITHIN = "within 0.25 m and 2 deg, 0.5 m and 5 deg, 5 m and 10 deg"


def _judged(method: str, day: str, night: str, source: str) -> Published:
    return Published(method, (None, None), f"day {day}, night {night} {_WITHIN}; {source}")


PLACE_ROWS = (
    Benchmark(
        "inloc",
        "poses of a phone in two buildings, by pictures cut out of laser scans: 329 queries, judged by the server",
        Posed(),
        "query/iphone7/*.JPG\ndatabase/cutouts/FLOOR/SCAN/*.jpg and *.jpg.mat (XYZcut)\n"
        "database/alignments/FLOOR/transformations/*_trans_SCAN.txt\npairs-query-netvlad40.txt, as hloc has it",
        "https://www.visuallocalization.net/datasets (InLoc); the list of pairs is part of hloc",
        partial(read_by, "places.inloc"),
        {"hloc": PlaceEvaluation("as hloc, but for pixels' centres", 2000, 20, 48.0)},
        pairs=329,
        published=tuple(
            Published(
                method, (None,), f"DUC1 {one}, DUC2 {other} within 0.25, 0.5 and 1 m and 10 deg; RoMa paper {QUOTED}"
            )
            for method, one, other in (
                ("RoMa", "60.6, 79.3, 89.9", "66.4, 83.2, 87.8"),
                ("DKM v3", "51.5, 76.8, 86.9", "63.4, 82.4, 87.8"),
            )
        ),
        apart="the figure says how many have a pose; the server judges FILE.kept/poses.txt",
        judged_by="romacli.eval.benchmarks.places.run",
        noun="photograph",
    ),
    Benchmark(
        "aachen",
        "poses of photographs of a city by day and by night, by a model of day: 1,015 queries, judged by the server",
        Posed(("query/day", "query/night"), ("day", "night")),
        "images/images_upright/{db,query,sequences}/**\n"
        "queries/{day,night}_time_queries_with_intrinsics.txt: NAME MODEL W H PARAMS\n"
        "3D-models/aachen_v_1_1/{aachen_v_1_1.nvm,database_intrinsics*.txt}\npairs-query-netvlad50.txt, as hloc has it",
        "https://www.visuallocalization.net/datasets (Aachen Day-Night v1.1); the list of pairs is part of hloc",
        partial(read_by, "places.aachen"),
        {"localize": CityEvaluation("with hloc's pairs and threshold", 12.0, 12)},
        published=(
            _judged("LoFTR", "88.7, 96.4, 99.0", "75.9, 90.6, not told", "hloc, pull request 173"),
            _judged("RoMa", "87.1, 94.8, 97.7", "66.5, 89.0, 96.3", "a user, RoMa issue 8"),
        ),
        apart="the figures say how many have a pose; the server judges FILE.kept/poses.txt",
        judged_by="romacli.eval.benchmarks.places.city",
        noun="photograph",
    ),
)
