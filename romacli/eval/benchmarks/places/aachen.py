"""Aachen Day-Night v1.1: a daytime model of the city from VisualSFM, and queries by day and by night."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from romacli.colmap.pose_files import rotation_of
from romacli.colmap.poses import Pose
from romacli.disk import read_lines
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
_MOST_ERROR_PX = 5.0  # median error of the model's own observations
_CHECKED = 2000
_FEWEST_SHARED, _PARTS, _MOST_PAIRS = 30, (0.1, 0.5), 1500


def read(root: Path) -> list[Task]:
    """A task for each query, by day and then by night.

    Raises:
        InputError: a list, the model or a query's picture is missing or damaged.
    """
    require(root, (IMAGES, f"{MODEL}/{NVM}", PAIRS, *QUERIES.values()))
    _intrinsics_file(root)
    names = [name for path in QUERIES.values() for name in read_query_list(root / path)]
    sizes = sizes_of(root / IMAGES, names)
    return [Task((name, "pose"), (sizes[name], (0, 0)), None) for name in names]


def read_map(root: Path) -> Map:
    """The model's points and their observations in its pictures, in COLMAP pixels.

    Raises:
        InputError: the model is damaged, or its observations do not fit its poses.
    """
    from romacli.localize.map import Map

    model = _model(root)
    observations = {}
    order = np.argsort(model.image, kind="stable")
    bounds = np.searchsorted(model.image[order], np.arange(len(model.names) + 1))
    for number, name in enumerate(model.names):
        seen = order[bounds[number] : bounds[number + 1]]
        if len(seen) and (root / IMAGES / name).is_file():
            observations[name] = model.point[seen], model.xy[seen]
    if not observations:
        raise InputError(
            f"{root / IMAGES} contains none of the {len(model.names)} pictures of the model. Unpack them there."
        )
    files = {name: name for name in observations}
    return Map(root / MODEL, root / IMAGES, files, None, observations, model.points)


def read_pairs(root: Path) -> list[Task]:
    """1,500 pairs of the model's pictures that share 10 to 50 % of the points of the one with fewer.

    Raises:
        InputError: the model is damaged, contains no such pairs, or a picture is missing.
    """
    require(root, (IMAGES, f"{MODEL}/{NVM}"))
    model = _model(root)
    count = len(model.names)
    order = np.argsort(model.point, kind="stable")
    keys, shared = _shared(model.image[order], model.point[order], count)
    one, other = np.divmod(keys, count)
    sees = np.bincount(model.image, minlength=count)
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
    """Pairs of images as one number each, smaller * count + larger, and the number of points they share."""
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
    (f0, x0, y0, k0), (f1, x1, y1, k1) = model.cameras[[i, j]].tolist()
    one, other = (np.array([[f, 0, x], [0, f, y], [0, 0, 1]]) for f, x, y in ((f0, x0, y0), (f1, x1, y1)))
    return PosedTruth.between((one, model.poses[i]), (other, model.poses[j]), (k0, k1))


@dataclass(frozen=True)
class _Model:
    """The contents of VisualSFM's file and the list of cameras.

    cameras: (n, 4) focal length, principal point and distortion of each picture. points: (m, 3). image, point, xy: the
    number of the picture and of the point of each observation, and its place in COLMAP px.
    """

    names: list[str]
    poses: list[Pose]
    cameras: np.ndarray
    points: np.ndarray
    image: np.ndarray
    point: np.ndarray
    xy: np.ndarray


def _model(root: Path) -> _Model:
    """Read the model; raises InputError if it is damaged, or its observations do not fit its poses."""
    known = _intrinsics(_intrinsics_file(root))
    path = root / MODEL / NVM
    try:
        names, poses, points, rows = _read_nvm(path)
    except (OSError, ValueError, IndexError, StopIteration) as error:
        raise InputError(f"{path} cannot be read as a model of VisualSFM ({error}). Unpack it again.") from error
    if lost := [name for name in names if name not in known]:
        raise InputError(f"{path} names {lost[0]}, whose camera is not in {INTRINSICS}. Unpack both again.")
    image, point = rows[:, :2].T.astype(np.int64)
    model = _Model(names, poses, np.array([known[name] for name in names]), points, image, point, rows[:, 2:])
    return replace(model, xy=model.xy + model.cameras[image, 1:3]) if _from_middle(path, model) else model


def _read_nvm(path: Path) -> tuple[list[str], list[Pose], np.ndarray, np.ndarray]:
    """Names, poses, points (m, 3), and rows: image, point, x, y."""
    with path.open(encoding="utf-8") as file:
        lines: Iterator[str] = (line for line in map(str.strip, file) if line and not line.startswith("NVM_V3"))
        names, poses = [], []
        for _ in range(int(next(lines))):
            words = next(lines).split()
            names.append(words[0])
            quaternion, centre = np.split(np.array(words[2:9], np.float64), [4])
            rotation = rotation_of(quaternion / np.linalg.norm(quaternion))
            poses.append(Pose(rotation, -rotation @ centre))
        points, rows = [], []
        for number in range(int(next(lines))):
            words = next(lines).split()
            points.append([float(word) for word in words[:3]])
            for start in range(7, 7 + 4 * int(words[6]), 4):
                rows.append((float(words[start]), number, float(words[start + 2]), float(words[start + 3])))
    if not rows:
        raise ValueError("it has no points")
    return names, poses, np.array(points), np.array(rows)


def _from_middle(path: Path, model: _Model) -> bool:
    """Whether observations are relative to the principal point, not the picture's corner: by which fits, if any."""
    count = len(model.xy)
    predicted, middles, places = [], [], []
    for row in np.linspace(0, count - 1, min(_CHECKED, count)).astype(int):
        pose, (focal, *middle, distortion) = model.poses[model.image[row]], model.cameras[model.image[row]]
        seen = pose.rotation @ model.points[model.point[row]] + pose.translation
        flat = seen[:2] / seen[2]
        predicted.append(focal * (1 + distortion * (flat @ flat)) * flat)
        middles.append(middle)
        places.append(model.xy[row])
    off = np.array(places) - predicted
    errors = [float(np.median(np.linalg.norm(off - shift, axis=1))) for shift in (np.array(middles), np.zeros(2))]
    if min(errors) > _MOST_ERROR_PX:
        raise InputError(
            f"{path}: observations are {min(errors):.0f} px from where its poses see their points. The model and "
            f"{INTRINSICS} do not belong together; unpack both again."
        )
    return errors[1] < errors[0]


def _intrinsics_file(root: Path) -> Path:
    found = sorted((root / MODEL).glob(INTRINSICS))
    if not found:
        raise InputError(f"{root / MODEL} lacks {INTRINSICS}. Unpack the model again.")
    return found[0]


def _intrinsics(path: Path) -> dict[str, np.ndarray]:
    """Focal length, principal point and the first term of distortion by name."""
    cameras = {}
    for number, line in read_lines(path, "the model's own"):
        words = line.split()
        try:
            if words[1] != "SIMPLE_RADIAL" or len(words) != 8:
                raise ValueError(line)
            cameras[words[0]] = np.array(words[4:], np.float64)
        except (ValueError, IndexError) as error:
            raise InputError(f"{path}:{number} is not NAME SIMPLE_RADIAL W H F CX CY K. Unpack it again.") from error
    return cameras
