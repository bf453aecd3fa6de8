"""The files of a localization: poses as text, a list of queries as JSON, and the map points of each query."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from romacli.disk import write_whole, written_whole
from romacli.errors import InputError, StoreError

LIST = "localized.json"
POSES = "poses.txt"


@dataclass(frozen=True)
class QueryPoints:
    """Points of a map in a query, in COLMAP pixels.

    ids: (n,) of the model. places: (n, 2) as transferred by warps. projected: (n, 2) by the pose, NaN without one.
    inliers: (n,) bool, those that agree with the pose.
    """

    ids: np.ndarray
    places: np.ndarray
    projected: np.ndarray
    inliers: np.ndarray


def points_file(folder: Path, query: str) -> Path:
    """The file of a query's points."""
    return folder / "points" / f"{query}.npz"


def write_points(folder: Path, query: str, points: QueryPoints) -> None:
    """Write the points of a query.

    Raises:
        StoreError: the file cannot be written.
    """
    with written_whole(points_file(folder, query)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            ids=points.ids.astype(np.int64),
            places=points.places.astype(np.float32),
            projected=points.projected.astype(np.float32),
            inliers=points.inliers.astype(bool),
        )


def read_points(folder: Path, query: str) -> QueryPoints | None:
    """Read the points of a query; None if it has no file.

    Raises:
        StoreError: the file is damaged.
    """
    path = points_file(folder, query)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as held:
            return QueryPoints(held["ids"], held["places"], held["projected"], held["inliers"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(f"{path} is damaged. Remove it and localize again.") from error


def write_localized(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the list of queries and their poses; a row without qvec and tvec has none.

    Raises:
        StoreError: a file cannot be written.
    """
    posed = [(row["name"], *row["qvec"], *row["tvec"]) for row in rows if "qvec" in row]
    lines = [" ".join((name, *(f"{value:.12g}" for value in values))) + "\n" for name, *values in posed]
    write_whole(folder / POSES, "".join(lines))
    write_whole(folder / LIST, json.dumps(list(rows), indent=1) + "\n")


def read_localized(folder: Path) -> list[dict[str, Any]]:
    """Read the list of queries.

    Raises:
        InputError: there is none.
        StoreError: it is damaged.
    """
    try:
        rows = json.loads((folder / LIST).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{folder} contains no {LIST}. Give a folder that `romacli localize` wrote.") from error
    except ValueError as error:
        raise StoreError(f"{folder / LIST} is damaged. Localize again.") from error
    if not (isinstance(rows, list) and all(isinstance(row, dict) and "name" in row for row in rows)):
        raise StoreError(f"{folder / LIST} is not a list of queries. Localize again.")
    return rows
