"""Lists of image pairs with known intrinsics and relative pose, in SuperGlue's text format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from romacli.disk import read_lines
from romacli.errors import InputError, PairsError
from romacli.types import Pair

NUMBERS = 2 + 9 + 9 + 16
GRAMMAR = (
    "A line is name0 name1 rot0 rot1, then K0 and K1 (9 numbers each) and T_0to1 (16), row by row; a tab between the "
    "names lets them hold spaces."
)
MAX_ROTATION_DEFECT = 1e-3  # largest entry of R^T R - I: lists carry few decimals


@dataclass(frozen=True)
class PosedPair:
    """Two photographs with known intrinsics and relative pose.

    Attributes:
        names: relative to the folder of photographs.
        quarter_turns: counter-clockwise rotations of each before matching, 0 to 3.
        intrinsics: K (3, 3) of each as stored, in px, where (0, 0) is the centre of the top-left pixel.
        rotation, translation: (3, 3) and (3,), cam1_from_cam0.
        line: its line number in the list.
    """

    names: Pair
    quarter_turns: tuple[int, int]
    intrinsics: tuple[np.ndarray, np.ndarray]
    rotation: np.ndarray
    translation: np.ndarray
    line: int


def read_pose_list(path: Path, images: Path) -> list[PosedPair]:
    """Read a list and check that its photographs exist.

    Blank lines and lines starting with # are skipped.

    Raises:
        InputError: the file or the folder cannot be read.
        PairsError: a line is malformed, has no or invalid ground truth, or names a missing photograph; or there are no
            lines.
    """
    if not images.is_dir():
        raise InputError(f"{images} is not a folder. Name the folder of the photographs in {path}.")
    pairs = [_pair(line, f"{path}:{number}", number) for number, line in read_lines(path, "a list of pairs with poses")]
    if not pairs:
        raise PairsError(f"{path} contains no pairs. {GRAMMAR}")
    _require_photographs(pairs, path, images)
    return pairs


def _pair(line: str, place: str, number: int) -> PosedPair:
    head, *columns = line.rsplit(None, NUMBERS)
    names = [name.strip() for name in head.split("\t")] if "\t" in head else head.split()
    if len(names) != 2 or len(columns) != NUMBERS:
        found = len(line.split())
        hint = "; it has no ground truth" if found in (2, 3, 4) else ""
        raise PairsError(f"{place}: {found} columns, expected {NUMBERS + 2}{hint}. {GRAMMAR}")
    values = _numbers(columns, place)
    turns = values[:2]
    if not np.isin(turns, (0, 1, 2, 3)).all():
        raise PairsError(f"{place}: rot0 and rot1 are {turns[0]:g} and {turns[1]:g}, expected quarter turns 0 to 3.")
    K0, K1 = (_intrinsics(values[start : start + 9].reshape(3, 3), f"{place}: K{i}") for i, start in ((0, 2), (1, 11)))
    rotation, translation = _pose(values[20:].reshape(4, 4), place)
    return PosedPair((names[0], names[1]), (int(turns[0]), int(turns[1])), (K0, K1), rotation, translation, number)


def _numbers(columns: Sequence[str], place: str) -> np.ndarray:
    values = []
    for position, text in enumerate(columns, start=3):
        try:
            values.append(float(text))
        except ValueError:
            raise PairsError(f"{place}: column {position}, {text!r}, is not a number. {GRAMMAR}") from None
        if not np.isfinite(values[-1]):
            raise PairsError(f"{place}: column {position} is {text}. Leave pairs without a known pose out.")
    return np.array(values)


def _intrinsics(matrix: np.ndarray, what: str) -> np.ndarray:
    is_upper = np.allclose(matrix[[1, 2, 2], [0, 0, 1]], 0)
    if not is_upper or matrix[2, 2] <= 0 or min(matrix[0, 0], matrix[1, 1]) <= 0:
        raise PairsError(f"{what} is no camera matrix: fx 0 cx, 0 fy cy, 0 0 1 with positive fx and fy was expected.")
    return matrix / matrix[2, 2]


def _pose(matrix: np.ndarray, place: str) -> tuple[np.ndarray, np.ndarray]:
    rotation, translation = matrix[:3, :3], matrix[:3, 3]
    defect = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if defect > MAX_ROTATION_DEFECT or np.linalg.det(rotation) < 0 or not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise PairsError(f"{place}: T_0to1 is no rigid motion: a rotation, a translation and 0 0 0 1 were expected.")
    if not translation.any():
        raise PairsError(
            f"{place}: T_0to1 does not move, so its translation has no direction to compare with. Leave the pair out."
        )
    u, _, vt = np.linalg.svd(rotation)
    return u @ vt, translation


def _require_photographs(pairs: Sequence[PosedPair], path: Path, images: Path) -> None:
    missing = [(pair.line, name) for pair in pairs for name in pair.names if not (images / name).is_file()]
    if missing:
        line, name = missing[0]
        names = len({name for _, name in missing})
        more = f" ({names} photographs are missing)" if names > 1 else ""
        raise PairsError(f"{path}:{line}: {images / name} does not exist{more}. Correct the name, or leave it out.")
