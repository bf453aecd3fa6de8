"""Photographs in the order of their names, and loop closures."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from romacli.options import Option
from romacli.pairing.source import Request, Source
from romacli.pairs.merge import merge
from romacli.pairs.retrieval import RetrievalOptions, retrieve
from romacli.pairs.sequential import sequential
from romacli.types import PairList
from romacli.words import counted


@dataclass(frozen=True)
class SequentialOptions(RetrievalOptions):
    """Pair each image with those that follow it in natural order of their names."""

    overlap: Annotated[
        int, Option("Number of following images each image is paired with. More take longer.", min=1)
    ] = 5
    quadratic: Annotated[bool, Option("Also pair images 1, 2, 4, 8, ... apart.", negatable=True)] = False
    loop_closure: Annotated[bool, Option("Also pair similar images far apart in the sequence.")] = False
    loop_period: Annotated[
        int, Option("Search loops from every Nth image. Smaller finds more and takes longer.", min=1)
    ] = 10


def find(options: SequentialOptions, request: Request) -> PairList:
    names = request.images.names
    along = sequential(names, overlap=options.overlap, quadratic=options.quadratic)
    if not options.loop_closure:
        return along
    described = request.described()
    queries = described.names[:: options.loop_period]
    loops = retrieve(described.names, described.descriptors, options, queries=queries, min_gap=options.overlap)
    merged, (first, more) = merge([along, loops])
    request.progress.say(f"{counted(first, 'pair')} in order, {more} more that may close loops")
    return merged


SEQUENTIAL = Source(
    "sequential",
    SequentialOptions,
    find,
    "photos/ --overlap 5",
    "Give two or more.",
    switch="loop_closure",
    switched=frozenset({"loop_period", *(field.name for field in fields(RetrievalOptions))}),
)
