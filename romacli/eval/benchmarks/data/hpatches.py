"""HPatches' full sequences: a reference picture and five others each, with homographies between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, read_numbers, require, tasks_of

FOLDER = "hpatches-sequences-release"
OTHERS = range(2, 7)
# Too large for the first learned matchers, and left out ever since.
LEFT_OUT = {
    "i_contruction", "i_crownnight", "i_dc", "i_pencils", "i_whitebuilding", "v_artisans", "v_astronautis", "v_talent",
}  # fmt: skip


def read(root: Path) -> list[Task]:
    """Five pairs of each sequence.

    Raises:
        InputError: there is no sequence, or one lacks a picture or a valid homography.
    """
    require(root, (FOLDER,))
    folders = sorted(path for path in (root / FOLDER).iterdir() if path.is_dir() and path.name[:2] in ("i_", "v_"))
    sequences = [f"{FOLDER}/{path.name}" for path in folders if path.name not in LEFT_OUT]
    if not sequences:
        raise InputError(f"{root / FOLDER} contains no sequences i_* and v_*. Unpack the release there.")
    require(root, [f"{sequence}/H_1_{k}" for sequence in sequences for k in OTHERS])
    return tasks_of(
        root,
        [
            ((f"{sequence}/1.ppm", f"{sequence}/{k}.ppm"), _homography(root / sequence / f"H_1_{k}"))
            for sequence in sequences
            for k in OTHERS
        ],
    )


def _homography(path: Path) -> np.ndarray:
    matrix = read_numbers(path, (3, 3))
    if not np.linalg.det(matrix):
        raise InputError(f"{path} contains no homography: its determinant is 0. Unpack the data again.")
    return matrix
