"""What is asked of a mapper, and what there is to map."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from romacli.options import Choice, Option, Panel

from .settings import Setting, parse_setting


class MapperName(Choice):
    auto = "auto"
    incremental = "incremental"
    global_ = "global"
    hierarchical = "hierarchical"


@dataclass(frozen=True)
class MapperOptions:
    """How a model is made.

    mapper: with `settings`, which belong to one mapper, auto is incremental alone.
    refine_intrinsics: False keeps every camera of the database as it is.
    known_poses: a COLMAP model whose poses are kept; points are triangulated and no mapper runs.
    settings: options of COLMAP's own, by name, which have the last word.
    """

    panel: ClassVar[Panel] = Panel.mapping

    mapper: Annotated[
        MapperName,
        Option(
            "auto (incremental; where that leaves images out or a focal length runs away, global too; the better model "
            "is kept), incremental, global (faster on many images) or hierarchical (incremental on parts of a large "
            "scene, then merged)."
        ),
    ] = MapperName.auto
    refine_intrinsics: Annotated[
        bool | None,
        Option(
            "Let the mapper change focal length and distortion. Default: yes, unless --camera-params or "
            "--known-poses is given.",
            negatable=True,
        ),
    ] = None
    # COLMAP keeps no smaller model, but never asks for more than half of the images.
    min_model_size: int = 10
    known_poses: Annotated[
        Path | None,
        Option(
            "Folder of a COLMAP model: keep its cameras and poses and triangulate points, instead of mapping. "
            "Photographs without a pose are left out.",
            metavar="MODEL",
        ),
    ] = None
    settings: Annotated[
        tuple[Setting, ...],
        Option(
            "An option of COLMAP's mapper by its name in pycolmap, such as init_min_tri_angle=4 or "
            "triangulation.min_angle=1; may be given several times. Values are literals, text in quotes. With any, "
            "auto is COLMAP's incremental mapper alone, on all tracks.",
            metavar="KEY=VALUE",
            name="mapper-option",
            parse=parse_setting,
            many=True,
        ),
    ] = ()
    seed: int = 0
    num_threads: int | None = None
    verbose: bool = False

    @property
    def threads(self) -> int:
        return self.num_threads or os.cpu_count() or 1

    @property
    def adjusts_cameras(self) -> bool:
        """Whether focal length and distortion may change."""
        return self.refine_intrinsics is not False


@dataclass(frozen=True)
class Content:
    """What a database offers a mapper; pairs without F keep COLMAP from calibrating cameras by them."""

    images: int
    guessed_cameras: int
    pairs: int
    pairs_without_F: int
    usable_pairs: int
