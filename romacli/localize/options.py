"""What is asked of a localization, and of photographs added to a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from romacli.colmap.options import parse_rigs
from romacli.colmap.rigs import RigFile
from romacli.options import Choice, Option, Panel


class Fallback(Choice):
    none = "none"
    retrieval = "retrieval"


@dataclass(frozen=True)
class LocalizeOptions:
    """Which map images a query is matched with, and when its pose is believed.

    tolerance: map images that lead to places further apart, in px at a long side of 1600, do not agree on a point.
    """

    panel: ClassVar[Panel] = Panel.mapping

    num_matched: Annotated[
        int, Option("Map images each query is matched with, those that look most like it. More take longer.", min=1)
    ] = 10
    pairs: Annotated[
        Path | None,
        Option("Match these pairs instead, a query and a map image a line, as hloc writes them.", metavar="FILE"),
    ] = None
    near: Annotated[
        Path | None,
        Option(
            "Rough poses of the queries, `NAME qw qx qy qz tx ty tz` a line or a COLMAP model: each is matched with "
            "the map images that look at the same part of space instead.",
            metavar="POSES",
        ),
    ] = None
    clusters: Annotated[
        bool,
        Option(
            "Group a query's map images by the points they share, solve a pose for each group, and keep the one that "
            "most points agree on: where places look alike."
        ),
    ] = False
    query_list: Annotated[
        Path | None,
        Option(
            "Queries with their intrinsics, `NAME MODEL WIDTH HEIGHT PARAMS...` a line, as hloc reads them. Default: "
            "all of QUERIES, with the map's camera where one took all its photographs and the size is the same, else a "
            "focal length by EXIF data, else one that is estimated with the pose.",
            metavar="FILE",
        ),
    ] = None
    rigs: Annotated[
        RigFile | None,
        Option(
            "Cameras of queries that move together, in COLMAP's JSON: queries whose names agree behind their cameras' "
            "prefixes were taken at one time and get one pose of the rig.",
            metavar="FILE",
            name="rig-config",
            parse=parse_rigs,
        ),
    ] = None
    max_error: Annotated[
        float, Option("Reprojection error in px that an inlier may have, at a long side of 1600.", min=0.1)
    ] = 8.0
    min_inliers: Annotated[int, Option("Points that have to agree on a pose, else there is none.", min=6)] = 40
    min_inlier_ratio: Annotated[
        float, Option("Share of a query's points that has to agree on its pose.", min=0, max=1)
    ] = 0.25
    fallback: Annotated[
        Fallback,
        Option(
            "What a query without a pose gets: none, or by retrieval the pose of the map image that looks most like "
            "it, marked as such."
        ),
    ] = Fallback.none
    tolerance: float = 8.0


class Adjust(Choice):
    new = "new"
    all = "all"


@dataclass(frozen=True)
class RegisterOptions:
    """What moves when photographs are added to a model."""

    panel: ClassVar[Panel] = Panel.mapping

    adjust: Annotated[
        Adjust,
        Option(
            "What bundle adjustment moves: new photographs and points alone, or all, and back into the old frame. Ids "
            "stay, and so do cameras that the model has."
        ),
    ] = Adjust.new
