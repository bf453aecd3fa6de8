"""PF-Pascal and PF-Willow, by the lists of pairs and points common in evaluations of semantic matching."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, require, sizes_of
from romacli.eval.benchmarks.points.truth import marked

PASCAL_LIST = "PF-dataset-PASCAL/test_pairs_pf_pascal.csv"
WILLOW_LIST = "PF-dataset/test_pairs_pf.csv"
_WILLOW_POINTS = 10


def read_pascal(root: Path) -> list[Task]:
    """Pairs of a list with columns source_image, target_image, class, XA, YA, XB, YB, numbers separated by semicolons.

    Errors are in long sides of the second picture.

    Raises:
        InputError: the list or a picture is missing, or a line contains something else.
    """
    rows = _rows(root, PASCAL_LIST)
    found = []
    for number, row in rows:
        try:
            xa, ya, xb, yb = ([float(word) for word in column.split(";") if word.strip()] for column in row[3:7])
            found.append((number, (row[0], row[1]), (np.stack([xa, ya], 1), np.stack([xb, yb], 1))))
        except ValueError as error:
            raise InputError(f"{root / PASCAL_LIST} line {number} contains no pair with its points.") from error
    return _tasks(root, PASCAL_LIST, found, by_picture=True)


def read_willow(root: Path) -> list[Task]:
    """Pairs of a list with both pictures, then x and y of ten points of the first and of the second, column by column.

    Errors are in long sides of the bounding box of the second picture's points.

    Raises:
        InputError: the list or a picture is missing, or a line contains something else.
    """
    found = []
    for number, row in _rows(root, WILLOW_LIST):
        try:
            xa, ya, xb, yb = np.array(row[2:], float).reshape(4, _WILLOW_POINTS)
        except ValueError as error:
            raise InputError(f"{root / WILLOW_LIST} line {number} contains no pair with its points.") from error
        found.append((number, (row[0], row[1]), (np.stack([xa, ya], 1), np.stack([xb, yb], 1))))
    return _tasks(root, WILLOW_LIST, found, by_picture=False)


def _rows(root: Path, name: str) -> list[tuple[int, list[str]]]:
    """The lines of a table after its header, with their numbers."""
    require(root, (name,))
    try:
        with (root / name).open(newline="", encoding="utf-8") as file:
            rows = [(number, row) for number, row in enumerate(csv.reader(file), 1) if row][1:]
    except UnicodeDecodeError as error:
        raise InputError(f"{root / name} cannot be read as a table. Fetch it again.") from error
    if not rows:
        raise InputError(f"{root / name} lists no pairs. Fetch it again.")
    for number, row in rows:
        if len(row) < 3 or any(Path(part).is_absolute() or ".." in Path(part).parts for part in row[:2]):
            raise InputError(f"{root / name} line {number} names no two pictures below the folder.")
    return rows


def _tasks(
    root: Path,
    name: str,
    found: Sequence[tuple[int, tuple[str, str], tuple[np.ndarray, np.ndarray]]],
    *,
    by_picture: bool,
) -> list[Task]:
    sizes = sizes_of(root, (picture for _, names, _ in found for picture in names))
    tasks = []
    for number, names, points in found:
        unit = max(sizes[names[1]]) if by_picture else float(np.ptp(points[1], axis=0).max(initial=0))
        source = f"{root / name} line {number}"
        tasks.append(marked(names, (sizes[names[0]], sizes[names[1]]), points, unit, source))
    return tasks
