"""Read a text file of photographs' positions."""

from __future__ import annotations

import math
from pathlib import Path

from romacli.disk import read_lines
from romacli.errors import InputError
from romacli.geometry.globe import Position, position_fault
from romacli.words import counted

_GRAMMAR = (
    "A line is a name, then latitude and longitude in degrees or x and y in m, then optionally a height or z; "
    "separated by tabs, commas or spaces."
)


def read_positions(path: Path, *, cartesian: bool) -> dict[str, Position]:
    """Read the positions of photographs from a file.

    Blank lines and lines starting with # are skipped. A line with a tab is split at tabs, one with a comma at
    commas, so names may contain spaces. A missing third number is 0.

    Args:
        cartesian: the numbers are x, y, z in m; otherwise latitude and longitude in degrees and height in m.

    Raises:
        InputError: the file cannot be read, or a line is invalid or repeats a name.
    """
    found: dict[str, Position] = {}
    for number, line in read_lines(path, "a text file of positions"):
        place = f"{path}:{number}"
        name, position = _row(line, place)
        if not cartesian and (abs(position[0]) > 90 or abs(position[1]) > 180):
            raise InputError(
                f"{place}: {position[0]:g}, {position[1]:g} is not a latitude within 90 and a longitude within 180 "
                "degrees. Swap them if they are in the wrong order, or give --cartesian if they are metres."
            )
        if not cartesian and (fault := position_fault(*position)):
            raise InputError(f"{place}: the position of {name} {fault}. Correct it, or leave the line out.")
        if name in found:
            raise InputError(f"{place}: {name} already has a position. Remove one of them.")
        found[name] = position
    if not found:
        raise InputError(f"{path} contains no positions. {_GRAMMAR}")
    return found


def _row(line: str, place: str) -> tuple[str, Position]:
    separator = next((letter for letter in "\t," if letter in line), None)
    name, *columns = (column.strip() for column in line.strip().split(separator))
    try:
        numbers = [float(column) for column in columns if column]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or not all(map(math.isfinite, numbers)):
        raise InputError(
            f"{place}: {counted(len(columns), 'column')} after the name {name!r}, expected 2 or 3 numbers. {_GRAMMAR}"
        )
    x, y, z = (*numbers, 0.0)[:3]
    return name, (x, y, z)
