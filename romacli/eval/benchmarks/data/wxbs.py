"""Pairs with points marked by hand, as in WxBS: folders of two pictures and corrs.txt."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, sizes_of

POINTS = "corrs.txt"
# Kept aside to choose settings by.
VALIDATION = {"kyiv_dolltheater2", "petrzin"}
_SUFFIXES = (".png", ".jpg")


def read(root: Path) -> list[Task]:
    """A task for each folder GROUP/PAIR, those of the validation set left out.

    Raises:
        InputError: there is none, or one lacks a picture or its points, or these are no rows of four numbers.
    """
    folders = sorted(path.parent for path in root.glob(f"*/*/{POINTS}"))
    paired = sorted({path.parent for suffix in _SUFFIXES for path in root.glob(f"*/*/01{suffix}")})
    if bare := [path for path in paired if path not in folders]:
        raise InputError(f"{bare[0]} lacks {POINTS}. Unpack the data again.")
    folders = [path for path in folders if path.name not in VALIDATION]
    if not folders:
        raise InputError(f"{root} holds no folders GROUP/PAIR with {POINTS}. Name the folder of the groups.")
    names = {folder: (_picture(root, folder, "01"), _picture(root, folder, "02")) for folder in folders}
    sizes = sizes_of(root, (name for pair in names.values() for name in pair))
    return [
        Task(pair, (sizes[pair[0]], sizes[pair[1]]), read_points(folder / POINTS)) for folder, pair in names.items()
    ]


def read_points(path: Path) -> np.ndarray:
    """(N, 4): x and y in the first and in the second picture, px.

    Raises:
        InputError: the file holds something else.
    """
    try:
        points = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as points. Unpack the data again.") from error
    if points.shape[1] != 4 or not len(points) or not np.isfinite(points).all():
        raise InputError(f"{path} holds {points.shape[0]} x {points.shape[1]} numbers, expected rows x0 y0 x1 y1.")
    return points


def _picture(root: Path, folder: Path, number: str) -> str:
    found = [folder / f"{number}{suffix}" for suffix in _SUFFIXES if (folder / f"{number}{suffix}").is_file()]
    return (found[0] if found else folder / f"{number}.png").relative_to(root).as_posix()
