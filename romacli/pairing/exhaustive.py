"""Every photograph with every other."""

from __future__ import annotations

from dataclasses import dataclass

from romacli.pairing.source import Request, Source
from romacli.pairs.exhaustive import exhaustive
from romacli.types import PairList


@dataclass(frozen=True)
class ExhaustiveOptions:
    """Pair every image with every other: n (n - 1) / 2 pairs."""


def find(options: ExhaustiveOptions, request: Request) -> PairList:
    return exhaustive(request.images.names)


EXHAUSTIVE = Source("exhaustive", ExhaustiveOptions, find, "photos/", "Give two or more.")
