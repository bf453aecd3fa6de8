"""Similar photographs, by one descriptor each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from romacli.errors import InputError
from romacli.options import Option
from romacli.pairing.source import Request, Source
from romacli.pairs.retrieval import RetrievalOptions, retrieve
from romacli.types import ImageList, PairList
from romacli.words import first_few


@dataclass(frozen=True)
class LookAlikeOptions(RetrievalOptions):
    """Pair similar images, by descriptors pooled from the matcher's coarse features.

    They are global features as in hloc; --descriptors uses those of any other tool.
    """

    query_list: Annotated[
        Path | None, Option("Only find partners for the images named in FILE, one per line.", "FILE")
    ] = None
    database_list: Annotated[
        Path | None, Option("Only find partners among the images named in FILE, one per line.", "FILE")
    ] = None


def find(options: LookAlikeOptions, request: Request) -> PairList:
    queries, database = _listed(options, request.images)
    described = request.described()
    names = set(described.names)
    return retrieve(
        described.names,
        described.descriptors,
        options,
        queries=None if queries is None else [name for name in queries if name in names],
        database=None if database is None else [name for name in database if name in names],
    )


def check(options: LookAlikeOptions, images: ImageList) -> None:
    options.check(len(images))
    _listed(options, images)


def _listed(options: LookAlikeOptions, images: ImageList) -> list[list[str] | None]:
    """The names in both lists, None for a list that is not given."""
    return [None if path is None else _names_in(path, images) for path in (options.query_list, options.database_list)]


def _names_in(path: Path, images: ImageList) -> list[str]:
    from romacli.images.listing import list_images

    names = list_images(images.root, names_file=path).names
    if strangers := sorted(set(names) - set(images.names)):
        raise InputError(
            f"{path} names photographs that --image-list leaves out: {first_few(strangers)}. Change one of the lists."
        )
    return list(names)


RETRIEVAL = Source(
    "retrieval",
    LookAlikeOptions,
    find,
    "photos/ --num-matched 20",
    "Lower --min-score, or leave out --mutual.",
    looks=True,
    check=check,
)
