"""Merge lists of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from romacli.types import Pair, PairList


@dataclass(frozen=True)
class MergedPairs:
    """The pairs of several lists; `added` counts the new pairs of each list."""

    pairs: PairList
    added: tuple[int, ...]


def merge(lists: Sequence[PairList]) -> MergedPairs:
    """Concatenate lists in order; of a pair and its reverse the first is kept."""
    kept: dict[Pair, None] = {}
    added = []
    for pairs in lists:
        before = len(kept)
        for pair in pairs.pairs:
            if pair[::-1] not in kept:
                kept.setdefault(pair)
        added.append(len(kept) - before)
    return MergedPairs(PairList(tuple(kept)), tuple(added))
