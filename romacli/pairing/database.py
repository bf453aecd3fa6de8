"""The verified or matched pairs of a COLMAP database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from romacli.errors import UsageError
from romacli.names import spelled
from romacli.options import Option
from romacli.pairing.source import Request, Source, held
from romacli.types import Pair, PairList


@dataclass(frozen=True)
class DatabaseOptions:
    """Take the verified pairs of a COLMAP database, or its matched pairs if none are verified."""

    reference_database: Annotated[
        Path | None, Option("COLMAP database to read pairs from; it is not changed.", "FILE")
    ] = None
    min_inliers: int = 15


def find(options: DatabaseOptions, request: Request) -> PairList:
    from romacli.mapping.views import read_listed_pairs

    images, database = request.images, options.reference_database
    if database is None:
        raise UsageError("from-database pairing reads a COLMAP database. Give it with --reference-database FILE.")
    listed = read_listed_pairs(database, min_inliers=options.min_inliers)
    meant = spelled({name for pair in listed for name in pair}, images.names)
    listed = [(meant.get(a, a), meant.get(b, b)) for a, b in listed]
    names = held(images, dict.fromkeys(name for pair in listed for name in pair), database, request.progress)
    order = {name: row for row, name in enumerate(names)}
    pairs: list[Pair] = [
        (a, b) if order[a] < order[b] else (b, a) for a, b in listed if a in order and b in order and a != b
    ]
    return PairList(tuple(sorted(dict.fromkeys(pairs), key=lambda pair: (order[pair[0]], order[pair[1]]))))


DATABASE = Source(
    "from-database",
    DatabaseOptions,
    find,
    "photos/ --reference-database database.db",
    "Give a database of these photographs.",
)
