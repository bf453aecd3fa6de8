"""Orders of work for a small cache. Pure functions; images are numbers below `count`, pairs are two of them.

`greedy` suits covisibility graphs, `banded` sequences, `hosted` sequences with loop closures, `blocks` lists of nearly
all pairs.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

import numpy as np

Edge = tuple[int, int]

# Limit on neighbour visits per pair for a greedy order, some 20 microseconds; beyond it the order is given up.
LOOKS_PER_PAIR = 40
# Shares are compared as integers, so that an order is the same on every machine.
_SHARE_BITS = 20


def blocks(pairs: Sequence[Edge], capacity: int) -> list[Edge]:
    """Keep a block of capacity - 1 images in memory, stream every other image past it, then take the next block.

    The stream alternates its direction, so that the last images of one block are the first of the next.
    """
    edges = np.sort(np.asarray(pairs, np.int64), axis=1)
    block = edges[:, 0] // (capacity - 1)
    streamed = np.where(block % 2 == 0, edges[:, 1], -edges[:, 1])
    return _listed(edges[np.lexsort((edges[:, 0], streamed, block))])


def banded(pairs: Sequence[Edge]) -> list[Edge]:
    """Pairs sorted by their first, then their second image."""
    edges = np.sort(np.asarray(pairs, np.int64), axis=1)
    return _listed(edges[np.lexsort((edges[:, 1], edges[:, 0]))])


def hosted(order: Sequence[Edge], count: int) -> list[Edge]:
    """Group pairs under their image with fewer pairs, with images in the order in which `order` first names them.

    The partners of an image with many pairs are mostly grouped in a few places, so it is cheaper to load that image
    once per place than to load each partner for it. If both have as many pairs, the earlier image is the host.
    """
    edges = np.array(order, np.int64)
    num_pairs = np.bincount(edges.ravel(), minlength=count)
    turn = np.zeros(count, np.int64)
    named, first = np.unique(edges, return_index=True)
    turn[named] = first
    swapped = np.lexsort((turn[edges], num_pairs[edges]))[:, 0] == 1
    edges[swapped] = edges[swapped, ::-1]
    return _listed(edges[np.lexsort((turn[edges[:, 1]], turn[edges[:, 0]]))])


def bandwidth_rank(pairs: Sequence[Edge], count: int) -> np.ndarray:
    """A rank of each image that brings partners close together: (count,) int64.

    Source: Cuthill and McKee 1969, reversed (George 1971): breadth-first from an image with the fewest pairs, visiting
    neighbours with fewer pairs first.
    """
    neighbours = _neighbours(pairs, count)
    by_degree = sorted(range(count), key=lambda image: len(neighbours[image]))
    position = {image: place for place, image in enumerate(by_degree)}
    seen = [False] * count
    order: list[int] = []
    for start in by_degree:
        if seen[start]:
            continue
        seen[start] = True
        head = len(order)
        order.append(start)
        while head < len(order):
            found = [image for image in neighbours[order[head]] if not seen[image]]
            for image in found:
                seen[image] = True
            order.extend(sorted(found, key=position.__getitem__))
            head += 1
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count - 1, -1, -1)
    return rank


class _Queue:
    """Images by the number of their pairs that could run at once; outdated keys are corrected when popped."""

    def __init__(
        self, left: Sequence[Collection[int]], held: Sequence[bool], ready: Sequence[int], *, by_share: bool
    ) -> None:
        self._left, self._held, self._ready, self._by_share = left, held, ready, by_share
        self._keys: list[int] = []

    def push(self, image: int) -> None:
        heapq.heappush(self._keys, self._key(image))

    def pop(self) -> int | None:
        """The image with the highest key that is not in memory; None if no image has a pair that could run."""
        while self._keys:
            hopeful = heapq.heappop(self._keys)
            image = hopeful % len(self._left)
            if not self._held[image] and self._ready[image]:
                true = self._key(image)
                if hopeful == true:
                    return image
                if hopeful < true:
                    heapq.heappush(self._keys, true)
        return None

    def _key(self, image: int) -> int:
        ready = self._ready[image]
        share = (ready << _SHARE_BITS) // len(self._left[image]) if self._by_share else ready
        return image - share * len(self._left)


def greedy(pairs: Sequence[Edge], count: int, capacity: int, *, by_share: bool) -> list[Edge] | None:
    """Load next the image with the most remaining pairs that can run at once; None if the search takes too long.

    by_share: rank by the share of an image's remaining pairs instead of their number. The image released has the
    fewest remaining pairs and, if possible, is not a partner of the image to load: releasing its only partner would
    loop forever. Ties go to the lower number.
    """
    left = _neighbours(pairs, count)
    held = [False] * count
    ready = [0] * count  # partners in memory, for images that are not
    leaving: list[int] = []  # entries: remaining pairs * count + image
    order: list[Edge] = []
    budget = LOOKS_PER_PAIR * len(pairs)
    num_held = start = 0

    queue = _Queue(left, held, ready, by_share=by_share)
    while len(order) < len(pairs):
        image = queue.pop()
        if image is None:
            while not left[start]:
                start += 1
            image = start
        partners = left[image]
        if num_held == capacity:
            gone = _least_wanted(leaving, left, held, partners, count)
            held[gone] = False
            num_held -= 1
            budget -= len(left[gone])
            ready[gone] = 0
            for other in left[gone]:
                ready[other] -= 1
        held[image] = True
        num_held += 1
        budget -= len(partners)
        if budget < 0:
            return None
        now = []
        for other in partners:
            if held[other]:
                now.append(other)
            else:
                ready[other] += 1
                queue.push(other)
        for other in now:
            order.append((image, other))
            del partners[other]
            theirs = left[other]
            del theirs[image]
            heapq.heappush(leaving, len(theirs) * count + other)
        heapq.heappush(leaving, len(partners) * count + image)
    return order


def _least_wanted(
    leaving: list[int], left: list[dict[int, None]], held: list[bool], partners: dict[int, None], count: int
) -> int:
    """The image in memory with the fewest remaining pairs that is not a partner, or if all are, the first of them."""
    kept: list[int] = []
    while leaving:
        entry = heapq.heappop(leaving)
        wanted, image = divmod(entry, count)
        if not held[image] or wanted != len(left[image]):
            continue
        if image in partners:
            kept.append(entry)
            continue
        for other in kept:
            heapq.heappush(leaving, other)
        return image
    for other in kept[1:]:
        heapq.heappush(leaving, other)
    return kept[0] % count


def _neighbours(pairs: Sequence[Edge], count: int) -> list[dict[int, None]]:
    """The partners of each image, in dictionaries because their order is the same on every machine."""
    neighbours: list[dict[int, None]] = [{} for _ in range(count)]
    for a, b in pairs:
        neighbours[a][b] = None
        neighbours[b][a] = None
    return neighbours


def _listed(edges: np.ndarray) -> list[Edge]:
    return [(a, b) for a, b in edges.tolist()]
