"""Numbers and names in sentences and lists. Imports nothing from the project."""

from __future__ import annotations

from collections.abc import Sequence


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun, such as "1 pair" or "12 pairs"; plural: if it is not the noun plus s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def counted_of(count: int, of_all: int, noun: str, one: str, several: str, plural: str | None = None) -> str:
    """A part of a whole with its verb, such as "1 of 3 pairs is done" or "2 of 3 pairs are done"."""
    return f"{count:,} of {counted(of_all, noun, plural)} {one if count == 1 else several}"


def first_few(names: Sequence[str], count: int = 5) -> str:
    """The first names of a list and the number of the rest, such as "a, b and 3 more"."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def is_number(word: str) -> bool:
    """Whether a word is a number as Python writes it."""
    try:
        float(word)
    except ValueError:
        return False
    return True
