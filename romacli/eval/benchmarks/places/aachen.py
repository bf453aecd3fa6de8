"""Aachen Day-Night v1.1: a model of the city by day as VisualSFM wrote it, and queries by day and by night."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, require, sizes_of, tasks_of
from romacli.eval.benchmarks.solvers import PosedTruth, check_intrinsics
from romacli.eval.throughput import spread
from romacli.localize.pose import read_query_list

if TYPE_CHECKING:
    from romacli.localize.map import Map

IMAGES, MODEL, PAIRS = "images/images_upright", "3D-models/aachen_v_1_1", "pairs-query-netvlad50.txt"
QUERIES = {when: f"queries/{when}_time_queries_with_intrinsics.txt" for when in ("day", "night")}
NVM, INTRINSICS = "aachen_v_1_1.nvm", "database_intrinsics*.txt"
_MOST_ERROR_PX = 5.0  # of the model's own observations, in the median
_CHECKED = 2000
_FEWEST_SHARED, _PARTS, _MOST_PAIRS = 30, (0.1, 0.5), 1500


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
    from romacli.localize.map import Map

    model = _model(root)
    names, points, rows, cameras = model.names, model.points, model.rows, model.cameras
    image, point = rows[:, 0].astype(int), rows[:, 1].astype(int)
    middles = np.array([cameras[name][1:3] for name in names])
    xy = rows[:, 2:] + middles[image] * model.from_middle
    observations = {}
    order = np.argsort(image, kind="stable")
    bounds = np.searchsorted(image[order], np.arange(len(names) + 1))
    for number, name in enumerate(names):
        seen = order[bounds[number] : bounds[number + 1]]
        if len(seen) and (root / IMAGES / name).is_file():
            observations[name] = point[seen], xy[seen]
    if not observations:
        raise InputError(f"{root / IMAGES} contains none of the {len(names)} pictures of the model. Unpack them there.")
    files = {name: name for name in observations}
    return Map(root / MODEL, root / IMAGES, files, None, observations, points)


def read_pairs(root: Path) -> list[Task]:
    """1,500 pairs of the model's pictures that share a tenth to a half of the points of the one that sees fewer.

    Raises:
        InputError: the model is damaged, contains no such pairs, or a picture is missing.
    """
    require(root, (IMAGES, f"{MODEL}/{NVM}"))
    model = _model(root)
    count = len(model.names)
    image, point = model.rows[:, 0].astype(np.int64), model.rows[:, 1].astype(np.int64)
    order = np.argsort(point, kind="stable")
    keys, shared = _shared(image[order], point[order], count)
    one, other = np.divmod(keys, count)
    sees = np.bincount(image, minlength=count)
    part = shared / np.minimum(sees[one], sees[other])
    fitting = np.flatnonzero((shared >= _FEWEST_SHARED) & (part >= _PARTS[0]) & (part <= _PARTS[1]))
    if not len(fitting):
        raise InputError(f"{root / MODEL / NVM} has no pictures that share a tenth to a half of their points.")
    chosen = [(int(one[row]), int(other[row])) for row in spread(fitting.tolist(), _MOST_PAIRS)]
    names = [f"{IMAGES}/{name}" for name in model.names]
    tasks = tasks_of(root, [((names[i], names[j]), _relative(model, i, j)) for i, j in chosen])
    check_intrinsics(root, tasks)
    return tasks


def _shared(image: np.ndarray, point: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images as one number each, smaller * count + larger, and how many points they share."""
    found, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    step = 1
    while (same := point[step:] == point[:-step]).any():
        pair = np.sort(np.stack((image[step:][same], image[:-step][same])), axis=0)
        keys, number = np.unique(pair[0] * count + pair[1], return_counts=True)
        found.append(keys)
        counts.append(number)
        step += 1
    keys, of = np.unique(np.concatenate(found), return_inverse=True)
    return keys, np.bincount(of, np.concatenate(counts), minlength=len(keys)).astype(int)


def _relative(model: _Model, i: int, j: int) -> PosedTruth:
    matrices, radial, turns, centres = [], [], [], []
    for number in (i, j):
        focal, x, y, distortion = model.cameras[model.names[number]]
        matrices.append(np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]]))
        radial.append(float(distortion))
        quaternion = tuple(model.poses[number][:4])
        turns.append(np.stack([_rotated(quaternion, axis) for axis in np.eye(3)], axis=1))
        centres.append(model.poses[number][4:])
    translation = turns[1] @ (centres[0] - centres[1])
    return PosedTruth((matrices[0], matrices[1]), turns[1] @ turns[0].T, translation, (radial[0], radial[1]))


@dataclass(frozen=True)
class _Model:
    """What VisualSFM's file and the list of cameras hold together; see `_read_nvm`.

    cameras: focal length, principal point and distortion by name. from_middle: whether observations count from there.
    """

    names: list[str]
    poses: np.ndarray
    points: np.ndarray
    rows: np.ndarray
    cameras: dict[str, np.ndarray]
    from_middle: bool


def _model(root: Path) -> _Model:
    """Raise InputError where it is damaged, or its observations do not fit its poses."""
    cameras = _intrinsics(_intrinsics_file(root))
    path = root / MODEL / NVM
    try:
        names, poses, points, rows = _read_nvm(path)
    except (OSError, ValueError, IndexError, StopIteration) as error:
        raise InputError(f"{path} cannot be read as a model of VisualSFM ({error}). Unpack it again.") from error
    if lost := [name for name in names if name not in cameras]:
        raise InputError(f"{path} names {lost[0]}, whose camera is not in {INTRINSICS}. Unpack both again.")
    return _Model(names, poses, points, rows, cameras, _from_middle(path, rows, names, poses, points, cameras))


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


def _from_middle(
    path: Path,
    rows: np.ndarray,
    names: list[str],
    poses: np.ndarray,
    points: np.ndarray,
    cameras: dict[str, np.ndarray],
) -> bool:
    """Whether observations count from the principal point or from the picture's corner, by what fits.

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
    return errors[1] < errors[0]


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
