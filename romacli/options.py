"""How an option is declared: once, in the annotation of the dataclass field that obeys it.

    overlap: Annotated[int, Option("Pair each image with this many that follow it.", min=1)] = 5

Commands and man pages are made of these; rooms know nothing of either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, get_args, get_type_hints


@dataclass(frozen=True)
class Option:
    """What a person is told of a value.

    metavar: what the value is called, by default after its type. min, max: bounds of a number. name: without hyphens
    in front, by default the field's. negatable: a switch that has a --no- form too. has_default: the default stands in
    the help, which else tells it in words.
    """

    help: str
    metavar: str | None = None
    min: float | None = None
    max: float | None = None
    name: str | None = None
    negatable: bool = False
    has_default: bool = True

    def flag(self, field: str) -> str:
        """The option of a field as it is typed."""
        return f"--{self.name or field.replace('_', '-')}"


def declared(options: type) -> Iterator[tuple[str, Any, Option]]:
    """Name, type and declaration of each field of a dataclass that is an option."""
    hints = get_type_hints(options, include_extras=True)
    for field in fields(options):
        kind, *notes = get_args(hints[field.name]) or (None,)
        for note in notes:
            if isinstance(note, Option):
                yield field.name, kind, note
