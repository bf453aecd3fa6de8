"""Scenes with known cameras, and protocols of reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from romacli.colmap.poses import Pose
from romacli.eval.benchmarks.benchmark import Measure, Published
from romacli.types import Size


@dataclass(frozen=True)
class Scene:
    """Photographs of one place.

    Attributes:
        images: the folder that names are relative to.
        sizes, poses: by name. intrinsics: K (3, 3) by name, in COLMAP px; empty if unknown.
        model: the folder of a COLMAP model with these poses, for triangulation.
        scans: the project file of the laser scans and their poses.
    """

    images: Path
    sizes: Mapping[str, Size]
    poses: Mapping[str, Pose]
    intrinsics: Mapping[str, np.ndarray]
    model: Path | None = None
    scans: Path | None = None


@dataclass(frozen=True)
class Subset:
    """Some photographs of a scene, for one model."""

    scene: Scene
    names: tuple[str, ...]


@dataclass(frozen=True)
class SceneEvaluation:
    """A protocol of reconstruction.

    px: long side of photographs in verification and mapping; max_error: of verification, in these px.
    asks: whether poses are evaluated, or points triangulated at known poses.
    measure: of the errors; published: figures by this protocol, None for the benchmark's.
    """

    about: str
    px: int
    max_error: float
    asks: Literal["poses", "points"]
    cameras: Literal["known", "shared", "own"]
    measure: Measure | None = None
    published: tuple[Published, ...] | None = None

    def __str__(self) -> str:
        cameras = {
            "known": "intrinsics given and kept",
            "shared": "intrinsics unknown, one camera a size (SIMPLE_RADIAL)",
            "own": "intrinsics unknown, a camera each (SIMPLE_RADIAL)",
        }[self.cameras]
        how = (
            "poses given and kept, points triangulated by COLMAP and judged as by ETH3D's evaluator, which leaves out "
            "those of which no beam of a scanner tells anything, mean over voxels of 1 cm"
            if self.asks == "points"
            else "romacli's mapper"
        )
        return (
            f"{self.about}: all pairs of photographs, tracks; long sides of {self.px} px, verified within "
            f"{self.max_error:g} px; {cameras}; {how}"
        )
