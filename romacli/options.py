"""How an option is declared: once, in the annotation of the dataclass field that obeys it.

    overlap: Annotated[int, Option("Pair each image with this many that follow it.", min=1)] = 5

Commands and man pages are made of these; rooms know nothing of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, get_args, get_type_hints


class Choice(StrEnum):
    """Words to choose from; one is written as plain text everywhere, in what is noted in a job too."""

    __repr__ = str.__repr__


class Panel(StrEnum):
    """Where options stand in `--help`, in this order. A dataclass names one as `panel`, an option may name another."""

    photographs = "Photographs"
    pairs = "Pairs"
    matcher = "Matcher"
    keypoints = "Keypoints"
    mapping = "Camera and mapping"
    running = "Running"
    output = "Output"


@dataclass(frozen=True)
class Option:
    """What a person is told of a value.

    Attributes:
        metavar: what the value is called, by default after its type.
        min, max: bounds of a number.
        name: without hyphens in front, by default the field's; short: one letter besides.
        is_argument: given by its place, without a name.
        negatable: a switch that has a --no- form too.
        has_default: whether the default stands in the help, which else tells it in words.
        hidden: left out of the help.
        environment: the variable that holds the default.
        parse: turns the text of a value into what the field holds.
        many: may be given several times; `parse` takes each.
    """

    help: str
    metavar: str | None = None
    min: float | None = None
    max: float | None = None
    name: str | None = None
    short: str | None = None
    is_argument: bool = False
    negatable: bool = False
    has_default: bool = True
    hidden: bool = False
    environment: str | None = None
    panel: Panel | None = None
    parse: Callable[[str], Any] | None = None
    many: bool = False

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
