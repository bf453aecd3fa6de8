"""Pairs whose verified matches are contradicted by third images that see the same places.

One part of a pair's warp may be right and another lead to a place that only looks alike. Verification keeps the part
with more matches, or both if one epipolar geometry explains both, as it often does for matches of two planes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from romacli.types import Pair

from .lattice import Edge, Views
from .triangles import CELLS, follow

# Places of the inliers of a pair, each (M, 2), relative to the sizes of its images; None if it is not verified.
ReadInliers = Callable[[Pair], tuple[np.ndarray, np.ndarray] | None]
# The share of the inliers seen by a third image that may be contradicted, and the minimum number that is seen.
_MOST_CONTRADICTED, _FEWEST_SEEN = 0.3, 50


def find_contradicted(
    views: Views, kept: Collection[Edge], doubtful: Collection[Edge], read: ReadInliers
) -> dict[Edge, float]:
    """Find pairs of which too many verified matches are contradicted, with the share of those.

    A third image sees a match that a pair with it continues from either end. It confirms the match if the other pair
    leads from there to the match's other end, and contradicts it if that pair ends elsewhere or does not continue.
    The worst pair is taken out first, and no longer testifies about others. Pairs that were contradicted, too, and that
    no third image sees any longer, follow.

    Args:
        kept: the pairs that testify. doubtful: those of them that may be taken out.
    """
    left, cells = set(kept), _cells(views, doubtful, read)
    shares = {edge: _share(views, edge, left, ends) for edge, ends in cells.items()}
    found: dict[Edge, float] = {}

    def accused() -> dict[Edge, float]:
        return {edge: share for edge, share in shares.items() if share is not None and share > _MOST_CONTRADICTED}

    at_first = accused()
    while now := accused():
        worst = max(now, key=lambda edge: now[edge])
        found[worst] = now[worst]
        del shares[worst]
        left.remove(worst)
        for third in _thirds(views, worst, left):
            for edge in (_edge(worst[0], third), _edge(worst[1], third)):
                if edge in shares:
                    shares[edge] = _share(views, edge, left, cells[edge])
    unseen = {edge for edge, share in shares.items() if share is None}
    return found | {edge: share for edge, share in at_first.items() if edge in unseen}


def find_contradicted_matches(
    views: Views, kept: Collection[Edge], edges: Collection[Edge], read: ReadInliers
) -> dict[Edge, np.ndarray]:
    """Which verified matches (M,) of each of some pairs are contradicted from either end, where any is.

    Args:
        kept: the pairs that testify.
    """
    left, found = set(kept), {}
    for edge, cells in _cells(views, edges, read).items():
        sides = zip(_testimony(views, edge, left), cells, strict=True)
        one, other = ((is_seen & ~is_confirmed)[places] for (is_seen, is_confirmed), places in sides)
        is_contradicted = one | other
        if is_contradicted.any():
            found[edge] = is_contradicted
    return found


def _cells(views: Views, edges: Collection[Edge], read: ReadInliers) -> Mapping[Edge, tuple[np.ndarray, np.ndarray]]:
    """The cells (M,) of the inliers of each verified pair in both images."""
    found = {}
    for edge in edges:
        if (places := read(views.pair_of(edge))) is not None:
            one, other = (
                lattice.nearest(ends * (lattice.columns, lattice.rows))[0].astype(np.int16)
                for ends, lattice in zip(places, (views.lattices[image] for image in edge), strict=True)
            )
            found[edge] = one, other
    return found


def _share(views: Views, edge: Edge, left: Collection[Edge], cells: tuple[np.ndarray, np.ndarray]) -> float | None:
    """The share of a pair's inliers that third images contradict, of all that they see; None if they see too few."""
    confirmed = seen = 0
    for (is_seen, is_confirmed), places in zip(_testimony(views, edge, left), cells, strict=True):
        confirmed += int(is_confirmed[places].sum())
        seen += int(is_seen[places].sum())
    return 1 - confirmed / seen if seen >= _FEWEST_SEEN else None


def _testimony(views: Views, edge: Edge, left: Collection[Edge]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each image of a pair, (count,) bool: the places whose match a third image sees, and those it confirms."""
    found = []
    for one, other in (edge, edge[::-1]):
        is_seen, is_confirmed = (np.zeros(views.lattices[one].count, bool) for _ in range(2))
        for third in _thirds(views, edge, left):
            start, off = follow(views, one, third, other)
            is_seen[start] = True
            is_confirmed[start] |= off < CELLS
        found.append((is_seen, is_confirmed))
    return found


def _thirds(views: Views, edge: Edge, left: Collection[Edge]) -> list[int]:
    """The images that pairs in `left` connect with both images of a pair."""
    one, other = edge
    common = set(views.neighbours[one]) & set(views.neighbours[other])
    return [third for third in sorted(common) if _edge(one, third) in left and _edge(other, third) in left]


def _edge(one: int, other: int) -> Edge:
    return min(one, other), max(one, other)
