"""All pairs of images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from romacli.types import PairList


def exhaustive(names: Sequence[str]) -> PairList:
    """Pair every image with every later one: n (n - 1) / 2 pairs, in the order of the names."""
    return PairList(tuple(combinations(names, 2)))
