"""Merge lists of pairs."""

from __future__ import annotations

from collections.abc import Sequence

from romacli.types import Pair, PairList


def merge(lists: Sequence[PairList]) -> tuple[PairList, list[int]]:
    """Concatenate lists in order, and count the new pairs of each; of a pair and its reverse the first is kept."""
    kept: dict[Pair, None] = {}
    added = []
    for pairs in lists:
        before = len(kept)
        for pair in pairs.pairs:
            if pair[::-1] not in kept:
                kept.setdefault(pair)
        added.append(len(kept) - before)
    return PairList(tuple(kept)), added
