"""Options, declared once in the annotation of the dataclass field that holds their value.

    overlap: Annotated[int, Option("Number of following images each image is paired with.", min=1)] = 5

Commands and man pages are generated from these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any, get_args, get_type_hints


class Choice(StrEnum):
    """An option's choices; printed as plain text everywhere, including in manifests."""

    __repr__ = str.__repr__


class Panel(StrEnum):
    """Groups of options in `--help`, in order. A dataclass sets `panel`; an option may override it."""

    photographs = "Photographs"
    pairs = "Pairs"
    matcher = "Matcher"
    keypoints = "Keypoints"
    mapping = "Camera and mapping"
    running = "Running"
    output = "Output"


@dataclass(frozen=True)
class Option:
    """How a field appears on the command line.

    Attributes:
        help: the help text.
        metavar: placeholder of the value; by default derived from its type.
        min, max: bounds of a number.
        name: without leading hyphens; by default the field's. short: an additional single letter.
        is_argument: positional.
        negatable: a flag that also has a --no- form.
        has_default: whether the help shows the default.
        hidden: left out of the help.
        environment: the environment variable that overrides the default.
        panel: overrides the dataclass's panel.
        parse: converts the text to the field's value.
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
        """The option as typed."""
        return f"--{self.name or field.replace('_', '-')}"


@dataclass(frozen=True)
class Typed:
    """What was typed, in a dataclass of options: the command, and the words of each of its options by flag.

    Paths are absolute, for a run in another folder.
    """

    command: str = ""
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)


def declared(options: type) -> Iterator[tuple[str, Any, Option]]:
    """Yield name, type and Option of each field that is an option."""
    hints = get_type_hints(options, include_extras=True)
    for part in fields(options):
        kind, *notes = get_args(hints[part.name]) or (None,)
        for note in notes:
            if isinstance(note, Option):
                yield part.name, kind, note


def flags(options: type) -> Iterator[str]:
    """The options of a dataclass, including nested ones, as typed."""
    yield from (option.flag(name) for name, _, option in declared(options))
    for kind in get_type_hints(options).values():
        if isinstance(kind, type) and is_dataclass(kind):
            yield from flags(kind)
