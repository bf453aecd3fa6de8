"""InLoc: queries from a phone, and laser scans cut out into pictures with a 3D position per pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from romacli.disk import read_lines
from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, require, sizes_of
from romacli.eval.benchmarks.places.matfile import read_matrix
from romacli.geometry.coordinates import colmap_to_hloc

PAIRS, QUERIES, CUTOUTS = "pairs-query-netvlad40.txt", "query/iphone7", "database/cutouts"
_LINES_OF_MOTION = slice(7, 11)


def read(root: Path) -> list[Task]:
    """A task for each query of the list of pairs; its truth is the names of the candidates.

    Raises:
        InputError: the list, a picture, or a scan's points or pose is missing or damaged.
    """
    require(root, (PAIRS, QUERIES, CUTOUTS))
    candidates: dict[str, list[str]] = {}
    for number, line in read_lines(root / PAIRS, "the published list"):
        words = line.split()
        if len(words) != 2 or any(Path(word).is_absolute() or ".." in Path(word).parts for word in words):
            raise InputError(f"{root / PAIRS}:{number}: expected a query and a cutout. Fetch the list again.")
        candidates.setdefault(words[0], []).append(words[1])
    if not candidates:
        raise InputError(f"{root / PAIRS} lists no pairs. Fetch the list again.")
    cutouts = sorted({name for names in candidates.values() for name in names})
    sizes = sizes_of(root, (*candidates, *cutouts))
    require(root, [f"{name}.mat" for name in cutouts])
    require(root, sorted({_motion_of(name) for name in cutouts}))
    for name in {_motion_of(name): name for name in cutouts}.values():
        motion(root, name)
    return [Task((query, "pose"), (sizes[query], (0, 0)), tuple(names)) for query, names in candidates.items()]


def in_space(root: Path, cutout: str, points: np.ndarray) -> np.ndarray:
    """The positions (n, 3), in m, of COLMAP pixels (n, 2) of a cutout in the building; NaN where the scan has none.

    Bilinear, or that of the nearest pixel if one of the four is missing.

    Raises:
        InputError: a file of the cutout is missing or damaged.
    """
    scan = read_matrix(root / f"{cutout}.mat", "XYZcut")
    if scan.ndim != 3 or scan.shape[2] != 3:
        raise InputError(f"{root / cutout}.mat holds XYZcut of {scan.shape}, expected (H, W, 3). Fetch it again.")
    limit = np.array([scan.shape[1] - 1, scan.shape[0] - 1])
    place = np.clip(colmap_to_hloc(points.astype(np.float64)), 0, limit)
    low = np.minimum(np.floor(place).astype(int), np.maximum(limit - 1, 0))
    (x, y), (along, down) = low.T, (place - low).T[:, :, None]
    right, below = np.minimum(x + 1, limit[0]), np.minimum(y + 1, limit[1])
    upper = scan[y, x] * (1 - along) + scan[y, right] * along
    lower = scan[below, x] * (1 - along) + scan[below, right] * along
    found = upper * (1 - down) + lower * down
    near_x, near_y = np.rint(place).astype(int).T
    found = np.where(np.isnan(found).any(1, keepdims=True), scan[near_y, near_x], found)
    rigid = motion(root, cutout)
    return np.asarray(found @ rigid[:3, :3].T + rigid[:3, 3])


def motion(root: Path, cutout: str) -> np.ndarray:
    """The transformation (4, 4) from a cutout's scan to its building.

    Raises:
        InputError: the file contains something else.
    """
    path = root / _motion_of(cutout)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[_LINES_OF_MOTION]
        matrix = np.array([line.split() for line in lines], np.float64).reshape(4, 4)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} contains no motion (4 x 4) in its lines 8 to 11. Fetch it again.") from error
    return matrix


def _motion_of(cutout: str) -> str:
    *_, floor, scan, name = Path(cutout).parts
    return f"database/alignments/{floor}/transformations/{name[:3]}_trans_{scan}.txt"
