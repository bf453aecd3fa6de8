"""Options and input of a mapper."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from romacli.options import Choice, Option, Panel

from .settings import Setting, parse_setting

# Minimum images of a model if others are not connected with them.
SMALLEST_GROUP = 3


class MapperName(Choice):
    auto = "auto"
    incremental = "incremental"
    global_ = "global"
    hierarchical = "hierarchical"


@dataclass(frozen=True)
class MapperOptions:
    """How a model is made.

    mapper: with `settings`, which apply to one mapper, auto means incremental only.
    refine_intrinsics: False keeps every camera of the database unchanged.
    known_poses: a COLMAP model whose poses are kept; points are triangulated and no mapper runs.
    settings: COLMAP options by name, applied last.
    """

    panel: ClassVar[Panel] = Panel.mapping

    mapper: Annotated[
        MapperName,
        Option(
            "auto (incremental; if that leaves images out or a focal length diverges, also global, keeping the "
            "better model; if its focal length diverges too, incremental with cameras held), incremental, global "
            "(faster on many images) or hierarchical (incremental on parts of a large scene, then merged)."
        ),
    ] = MapperName.auto
    refine_intrinsics: Annotated[
        bool | None,
        Option(
            "Let the mapper refine focal length and distortion; with --mapper-option ba_refine_focal_length=False "
            "distortion alone. Default: yes, unless --camera-params or --known-poses is given.",
            negatable=True,
        ),
    ] = None
    # Smaller models are discarded, unless images fall into groups that no pair connects.
    min_model_size: int = 10
    known_poses: Annotated[
        Path | None,
        Option(
            "Folder of a COLMAP model: keep its cameras and poses and only triangulate points. Photographs without a "
            "pose are left out.",
            metavar="MODEL",
        ),
    ] = None
    settings: Annotated[
        tuple[Setting, ...],
        Option(
            "An option of COLMAP's mapper by its pycolmap name, such as init_min_tri_angle=4 or "
            "triangulation.min_angle=1; may be repeated. Values are literals, strings in quotes. If given, auto runs "
            "only COLMAP's incremental mapper, on all tracks.",
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
    """The contents of a database that matter to a mapper; COLMAP cannot calibrate cameras from pairs without F."""

    images: int
    guessed_cameras: int
    pairs: int
    pairs_without_F: int
    usable_pairs: int


@dataclass(frozen=True)
class MapperInput:
    """The input of a mapper.

    database: may be changed. images: folder of the photographs, for the colours of points. progress: called with the
    number of newly registered images. left_out: mappers add the names of images that they placed by hardly any points.
    """

    database: Path
    images: Path
    options: MapperOptions
    content: Content
    progress: Callable[[int], None] | None = None
    left_out: set[str] = field(default_factory=set)
