"""Pairs with hand-marked points, as in WxBS: folders with two pictures and corrs.txt."""

from __future__ import annotations

from pathlib import Path

from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, read_numbers, tasks_of

POINTS = "corrs.txt"
# Reserved for choosing settings.
VALIDATION = {"kyiv_dolltheater2", "petrzin"}
_SUFFIXES = (".png", ".jpg")


def read(root: Path) -> list[Task]:
    """A task for each folder GROUP/PAIR that is not in the validation set.

    Raises:
        InputError: there is none, or one lacks a picture or points, or these are not rows of four numbers.
    """
    folders = sorted(path.parent for path in root.glob(f"*/*/{POINTS}"))
    paired = sorted({path.parent for suffix in _SUFFIXES for path in root.glob(f"*/*/01{suffix}")})
    if bare := [path for path in paired if path not in folders]:
        raise InputError(f"{bare[0]} lacks {POINTS}. Unpack the data again.")
    folders = [path for path in folders if path.name not in VALIDATION]
    if not folders:
        raise InputError(f"{root} contains no folders GROUP/PAIR with {POINTS}. Name the folder of the groups.")
    return tasks_of(
        root,
        [
            ((_picture(root, folder, "01"), _picture(root, folder, "02")), read_numbers(folder / POINTS, (None, 4)))
            for folder in folders
        ],
    )


def _picture(root: Path, folder: Path, number: str) -> str:
    found = [folder / f"{number}{suffix}" for suffix in _SUFFIXES if (folder / f"{number}{suffix}").is_file()]
    return (found[0] if found else folder / f"{number}.png").relative_to(root).as_posix()
