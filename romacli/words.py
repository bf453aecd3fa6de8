"""Numbers and names in sentences. Imports nothing from the project."""

from __future__ import annotations

from collections.abc import Sequence


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun, such as "1 pair" or "12 pairs"; plural: if it is not the noun plus s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def first_few(names: Sequence[str], count: int = 5) -> str:
    """The first names of a list and the number of the rest, such as "a, b and 3 more"."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
