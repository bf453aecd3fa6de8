"""The definition of a pair source, and helpers that sources share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from romacli.errors import InputError
from romacli.progress import Progress
from romacli.types import ImageList, PairList
from romacli.words import counted, first_few


@dataclass(frozen=True)
class Described:
    """Descriptors (N, D) float32 of unit length of the images with these names, in natural order."""

    names: tuple[str, ...]
    descriptors: np.ndarray


Describe = Callable[[ImageList], Described]


@dataclass(frozen=True)
class Request:
    """The input of a source apart from its options. describe: None if it needs no descriptors."""

    images: ImageList
    progress: Progress
    describe: Describe | None = None

    def described(self) -> Described:
        """Descriptors of the photographs."""
        assert self.describe is not None, "this source needs descriptors"
        return self.describe(self.images)


@dataclass(frozen=True)
class Source:
    """A row of the table of sources.

    options: a dataclass whose docstring is the command's help. find: returns the pairs, each in natural order. example:
    arguments after `romacli pairs NAME`. advice: what to change if no pair is found. looks: whether it always needs the
    photographs' descriptors; if not, only when `switch` is on. switch: a field that enables those in `switched`.
    check: raises if the photographs do not suffice for the options.
    """

    name: str
    options: type
    find: Callable[[Any, Request], PairList]
    example: str
    advice: str
    looks: bool = False
    switch: str | None = None
    switched: frozenset[str] = frozenset()
    check: Callable[[Any, ImageList], None] = lambda options, images: None

    def looks_at_photographs(self, options: Any) -> bool:
        """Whether it needs descriptors, and so a matcher."""
        return self.looks or self.is_switched_on(options)

    def is_switched_on(self, options: Any) -> bool:
        return self.switch is not None and bool(getattr(options, self.switch))


def held(images: ImageList, known: Collection[str], source: Path, progress: Progress) -> list[str]:
    """The photographs that are in a model or database, in natural order.

    Raises:
        InputError: fewer than two.
    """
    known = set(known)
    names = [name for name in images.names if name in known]
    if len(names) < 2:
        raise InputError(
            f"{source} knows {len(names)} of the {counted(len(images), 'photograph')} in {images.root}. "
            f"Its names are such as {min(known, default='none')}, the folder's such as {images.names[0]}. "
            "Give the folder they are relative to."
        )
    if missing := [name for name in images.names if name not in known]:
        progress.warn(
            f"{counted(len(missing), 'photograph is', 'photographs are')} unknown to {source}, so without pairs: "
            f"{first_few(missing)}"
        )
    if others := len(known - set(names)):
        progress.warn(
            f"{source} knows {counted(others, 'image that is', 'images that are')} not in {images.root}, left out"
        )
    return names
