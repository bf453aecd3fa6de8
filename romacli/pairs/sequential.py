"""Pairs of each image with those that follow it, for photographs taken in sequence."""

from __future__ import annotations

from collections.abc import Sequence

from romacli.errors import UsageError
from romacli.types import PairList


def sequential(names: Sequence[str], *, overlap: int, quadratic: bool = False) -> PairList:
    """Pair every image with the `overlap` images after it, in the order of the names.

    Args:
        names: image names in the order they were taken.
        overlap: number of following images each is paired with, at least 1.
        quadratic: also pair each with the images 1, 2, 4, ... 2^(overlap - 1) further on, which connects a long
            path at little cost. COLMAP 4.2 uses only these; here both are used.

    Raises:
        UsageError: the overlap is below 1.
    """
    if overlap < 1:
        raise UsageError(f"--overlap is {overlap}; it counts the following images and must be at least 1.")
    count = len(names)
    steps = set(range(1, min(overlap, count) + 1))
    if quadratic:
        steps |= {2**power for power in range(min(overlap, count.bit_length()))}
    ordered = sorted(steps)
    return PairList(tuple((names[i], names[i + step]) for i in range(count) for step in ordered if i + step < count))
