"""TAP-Vid DAVIS: videos with annotated point tracks in one pickle, which is read without executing anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, require
from romacli.eval.benchmarks.points.truth import PointTruth
from romacli.store.pickled import read_pickle

FILE = "tapvid_davis.pkl"
SIDE = 256  # px of the square frame in which errors are measured


def read(root: Path) -> list[Task]:
    """The first frame of each video with every later one, and the points visible in both.

    Errors are in px of a frame of 256x256.

    Raises:
        InputError: the file is missing, damaged, or contains something else.
    """
    require(root, (FILE,))
    films = read_pickle(root / FILE)
    if not isinstance(films, dict) or not films:
        raise InputError(f"{root / FILE} contains no films by name. Fetch it again.")
    return [task for name, film in films.items() for task in _pairs(str(name), film, root / FILE)]


def _pairs(name: str, film: Any, path: Path) -> Iterator[Task]:
    try:
        video, points = np.asarray(film["video"]), np.asarray(film["points"], np.float64)
        hidden = np.asarray(film["occluded"], bool)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: film {name} lacks its video, points or occluded. Fetch it again.") from error
    whole = video.ndim == 4 and video.dtype == np.uint8 and points.shape == (len(hidden), len(video), 2)
    if not whole or hidden.shape != points.shape[:2]:
        raise InputError(f"{path}: film {name} is no film (T, H, W, 3) with points (N, T, 2). Fetch it again.")
    size = video.shape[2], video.shape[1]
    for frame in range(1, len(video)):
        seen = ~(hidden[:, 0] | hidden[:, frame])
        if seen.any():
            one, other = (points[seen, index] * size for index in (0, frame))
            truth = PointTruth((np.clip(one, 0, size), other), np.array(size) / SIDE, (video[0], video[frame]))
            yield Task((f"{name}/0", f"{name}/{frame}"), (size, size), truth)
