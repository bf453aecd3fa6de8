"""Aachen Day-Night v1.1: a model of the city by day as VisualSFM wrote it, and queries by day and by night."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, require, sizes_of
from romacli.localize.pose import read_query_list

if TYPE_CHECKING:
    from romacli.localize.localize import Map

IMAGES, MODEL, PAIRS = "images/images_upright", "3D-models/aachen_v_1_1", "pairs-query-netvlad50.txt"
QUERIES = {when: f"queries/{when}_time_queries_with_intrinsics.txt" for when in ("day", "night")}
NVM, INTRINSICS = "aachen_v_1_1.nvm", "database_intrinsics*.txt"
_MOST_ERROR_PX = 5.0  # of the model's own observations, in the median
_CHECKED = 2000


@dataclass(frozen=True)
class City:
    """Where the data lie."""

    root: Path


def read(root: Path) -> list[Task]:
    """A task for each query, by day and then by night.

    Raises:
        InputError: a list, the model or a query's picture is missing or damaged.
    """
    require(root, (IMAGES, f"{MODEL}/{NVM}", PAIRS, *QUERIES.values()))
    _intrinsics_file(root)
    names = [name for path in QUERIES.values() for name in read_query_list(root / path)]
    sizes = sizes_of(root / IMAGES, names)
    city = City(root)
    return [Task((name, "pose"), (sizes[name], (0, 0)), city) for name in names]


def read_map(root: Path) -> Map:
    """The model's points and where its pictures see them, in COLMAP pixels.

    Raises:
        InputError: the model is damaged, or its observations do not fit its poses.
    """
    from romacli.localize.localize import Map

    cameras = _intrinsics(_intrinsics_file(root))
    path = root / MODEL / NVM
    try:
        names, poses, points, rows = _read_nvm(path)
    except (OSError, ValueError, IndexError, StopIteration) as error:
        raise InputError(f"{path} cannot be read as a model of VisualSFM ({error}). Unpack it again.") from error
    if lost := [name for name in names if name not in cameras]:
        raise InputError(f"{path} names {lost[0]}, whose camera is not in {INTRINSICS}. Unpack both again.")
    image, point = rows[:, 0].astype(int), rows[:, 1].astype(int)
    middles = np.array([cameras[name][1:3] for name in names])
    xy = rows[:, 2:] + _offset(path, rows, names, poses, points, cameras)[:, None] * middles[image]
    observations = {}
    order = np.argsort(image, kind="stable")
    bounds = np.searchsorted(image[order], np.arange(len(names) + 1))
    for number, name in enumerate(names):
        seen = order[bounds[number] : bounds[number + 1]]
        if len(seen) and (root / IMAGES / name).is_file():
            observations[name] = point[seen], xy[seen]
    if not observations:
        raise InputError(f"{root / IMAGES} holds none of the {len(names)} pictures of {path}. Unpack them there.")
    return Map(root / MODEL, root / IMAGES, None, dict(enumerate(points)), observations)


def _read_nvm(path: Path) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Names, poses (n, 7) as quaternion and centre, points (m, 3), and rows: image, point, x, y."""
    with path.open(encoding="utf-8") as file:
        lines: Iterator[str] = (line for line in map(str.strip, file) if line and not line.startswith("NVM_V3"))
        names, poses = [], []
        for _ in range(int(next(lines))):
            words = next(lines).split()
            names.append(words[0])
            poses.append([float(word) for word in words[2:9]])
        points, rows = [], []
        for number in range(int(next(lines))):
            words = next(lines).split()
            points.append([float(word) for word in words[:3]])
            for start in range(7, 7 + 4 * int(words[6]), 4):
                rows.append((float(words[start]), number, float(words[start + 2]), float(words[start + 3])))
    if not rows:
        raise ValueError("it has no points")
    return names, np.array(poses), np.array(points), np.array(rows)


def _offset(
    path: Path,
    rows: np.ndarray,
    names: list[str],
    poses: np.ndarray,
    points: np.ndarray,
    cameras: dict[str, np.ndarray],
) -> np.ndarray:
    """Whether observations count from the principal point (1) or from the picture's corner (0), by what fits, (N,).

    Raises:
        InputError: neither does.
    """
    some = rows[np.linspace(0, len(rows) - 1, min(_CHECKED, len(rows))).astype(int)]
    predicted, middles = [], []
    for image, point, *_ in some:
        w, x, y, z, *centre = poses[int(image)]
        focal, *middle, distortion = cameras[names[int(image)]]
        seen = _rotated((w, x, y, z), points[int(point)] - centre)
        flat = seen[:2] / seen[2]
        predicted.append(focal * (1 + distortion * (flat @ flat)) * flat)
        middles.append(middle)
    errors = [
        float(np.median(np.linalg.norm(some[:, 2:] - predicted - shift, axis=1)))
        for shift in (np.array(middles), np.zeros(2))
    ]
    if min(errors) > _MOST_ERROR_PX:
        raise InputError(
            f"{path}: observations are {min(errors):.0f} px from where its poses see their points. The model and "
            f"{INTRINSICS} do not belong together; unpack both again."
        )
    return np.full(len(rows), float(errors[1] < errors[0]))


def _rotated(quaternion: tuple[float, ...], point: np.ndarray) -> np.ndarray:
    w, *vector = np.array(quaternion) / np.linalg.norm(quaternion)
    cross = np.cross(vector, point)
    return np.asarray(point + 2 * (w * cross + np.cross(vector, cross)))


def _intrinsics_file(root: Path) -> Path:
    found = sorted((root / MODEL).glob(INTRINSICS))
    if not found:
        raise InputError(f"{root / MODEL} lacks {INTRINSICS}. Unpack the model again.")
    return found[0]


def _intrinsics(path: Path) -> dict[str, np.ndarray]:
    """Focal length, principal point and the first term of distortion by name."""
    cameras = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        try:
            if words and (words[1] != "SIMPLE_RADIAL" or len(words) != 8):
                raise ValueError(line)
            if words:
                cameras[words[0]] = np.array(words[4:], np.float64)
        except (ValueError, IndexError) as error:
            raise InputError(f"{path}:{number} is not NAME SIMPLE_RADIAL W H F CX CY K. Unpack it again.") from error
    return cameras
