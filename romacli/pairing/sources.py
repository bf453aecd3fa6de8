"""The table of pair sources, and choosing pairs with one of them."""

from __future__ import annotations

from typing import Any

from romacli.errors import InputError, UsageError
from romacli.pairing.database import DATABASE
from romacli.pairing.exhaustive import EXHAUSTIVE
from romacli.pairing.model import COVISIBLE, POSES
from romacli.pairing.retrieval import RETRIEVAL
from romacli.pairing.sequential import SEQUENTIAL
from romacli.pairing.source import Describe, Request, Source
from romacli.pairing.spatial import SPATIAL
from romacli.progress import Progress
from romacli.types import ImageList, PairList
from romacli.words import counted, first_few

SOURCES = {source.name: source for source in (EXHAUSTIVE, SEQUENTIAL, RETRIEVAL, SPATIAL, POSES, COVISIBLE, DATABASE)}


def source_named(name: str) -> Source:
    """The row with this name.

    Raises:
        UsageError: no such source.
    """
    if name not in SOURCES:
        raise UsageError(f"pairing {name} is not known. Choose from: {', '.join(SOURCES)}.")
    return SOURCES[name]


def source_of(options: Any) -> Source:
    """The source that these options belong to."""
    return next(source for source in SOURCES.values() if type(options) is source.options)


def choose_pairs(images: ImageList, options: Any, progress: Progress, *, describe: Describe | None = None) -> PairList:
    """Choose pairs among the photographs of a folder with a source, each in natural order.

    Args:
        options: of a source in `SOURCES`.
        describe: computes the descriptors for retrieval; required if the source needs them.

    Raises:
        UsageError: invalid options.
        InputError: the source's input is missing, damaged, or of other photographs; or no pair is found.
    """
    source = source_of(options)
    source.check(options, images)
    pairs = source.find(options, Request(images, progress, describe))
    if not pairs.pairs:
        raise InputError(
            f"{source.name} pairing found no pair among {counted(len(images), 'photograph')}. {source.advice}"
        )
    paired = {name for pair in pairs.pairs for name in pair}
    if alone := [name for name in images.names if name not in paired]:
        progress.warn(
            f"in no pair: {len(alone)} of {counted(len(images), 'photograph')}, {first_few(alone)}. {source.advice}"
        )
    return pairs
