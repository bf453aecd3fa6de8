"""Options of localization, and of adding photographs to a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from romacli.colmap.rigs import RigFile, read_rigs
from romacli.options import Choice, Option, Panel


class Fallback(Choice):
    none = "none"
    retrieval = "retrieval"


@dataclass(frozen=True)
class LocalizeOptions:
    """Which map images a query is matched with, and when its pose is accepted.

    tolerance: maximum distance, in px at a long side of 1600, between positions of one point from several map images.
    """

    panel: ClassVar[Panel] = Panel.mapping

    num_matched: Annotated[
        int, Option("Number of map images each query is matched with, the most similar ones. More take longer.", min=1)
    ] = 8
    pairs: Annotated[
        Path | None,
        Option("Match these pairs instead: a query and a map image per line, as in hloc.", metavar="FILE"),
    ] = None
    near: Annotated[
        Path | None,
        Option(
            "Approximate poses of the queries, as lines `NAME qw qx qy qz tx ty tz` or a COLMAP model: match each "
            "with the map images whose view frusta overlap its own instead.",
            metavar="POSES",
        ),
    ] = None
    clusters: Annotated[
        bool,
        Option(
            "Cluster a query's map images by covisibility, solve a pose per cluster and keep the one with the most "
            "inliers; for scenes with look-alike places."
        ),
    ] = False
    query_list: Annotated[
        Path | None,
        Option(
            "Queries with intrinsics, as lines `NAME MODEL WIDTH HEIGHT PARAMS...` as in hloc. Default: all of "
            "QUERIES, with the map's camera if the map has only one, the size matches and EXIF data tell of no "
            "other, else the focal length from EXIF data, else one estimated with the pose.",
            metavar="FILE",
        ),
    ] = None
    rigs: Annotated[
        RigFile | None,
        Option(
            "Camera rigs of queries, in COLMAP's JSON format: queries whose names match after their cameras' "
            "prefixes were taken simultaneously and share one rig pose.",
            metavar="FILE",
            name="rig-config",
            parse=read_rigs,
        ),
    ] = None
    max_error: Annotated[
        float, Option("Maximum reprojection error of an inlier, in px at a long side of 1600.", min=0.1)
    ] = 8.0
    min_inliers: Annotated[int, Option("Minimum inliers of an accepted pose.", min=6)] = 40
    min_inlier_ratio: Annotated[float, Option("Minimum inlier ratio of an accepted pose.", min=0, max=1)] = 0.25
    fallback: Annotated[
        Fallback,
        Option(
            "Pose of a query that could not be localized: none, or retrieval, the pose of the most similar map "
            "image, marked as such."
        ),
    ] = Fallback.none
    tolerance: float = 8.0


class Adjust(Choice):
    new = "new"
    all = "all"


@dataclass(frozen=True)
class RegisterOptions:
    """What bundle adjustment moves when photographs are added to a model."""

    panel: ClassVar[Panel] = Panel.mapping

    adjust: Annotated[
        Adjust,
        Option(
            "What bundle adjustment moves: new, only new photographs and points; all, everything, then aligned back "
            "to the old frame. Ids and the model's cameras are kept."
        ),
    ] = Adjust.new
