"""SatAst: photographs by astronauts, satellite pictures, and points marked in both."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import numpy as np

from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, require, tasks_of
from romacli.geometry.coordinates import hloc_to_colmap

FOLDER = "annotations-v1"


def read(root: Path) -> list[Task]:
    """A task for each annotation that has points.

    Raises:
        InputError: there is no annotation, one is damaged, or a picture is missing.
    """
    require(root, (FOLDER,))
    paths = sorted((root / FOLDER).glob("*.json"))
    found = [(names, points) for names, points in map(_annotation, paths) if len(points)]
    if not found:
        raise InputError(f"{root / FOLDER} contains no annotations with points. Fetch them again.")
    return tasks_of(root, found)


def _annotation(path: Path) -> tuple[tuple[str, str], np.ndarray]:
    """The names of both pictures, and the points of the last round, (N, 4) COLMAP px."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        last = values["correspondences"][-1]
        sides = [np.asarray(last[key], np.float64).reshape(-1, 2) for key in ("pts_src", "pts_dst")]
        points = hloc_to_colmap(np.concatenate(sides, 1))
        names = [PurePosixPath(values[key].replace("\\", "/")) for key in ("query_path", "pred_path")]
        if any(name.is_absolute() or ".." in name.parts for name in names):
            raise ValueError(f"{names} leave the folder")
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read as an annotation. Fetch it again.") from error
    return (str(names[0]), str(names[1])), points
