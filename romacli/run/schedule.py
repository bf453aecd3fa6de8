"""From a pair list and a cache capacity to the whole order of work: images to load and release, and when. Pure.

Candidate orders of the pairs are each simulated with Belady's rule (release the image needed furthest in the future),
and the one with the fewest loads is chosen. Nothing is decided while the pairs run.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from romacli.errors import UsageError
from romacli.run.orders import Edge, banded, bandwidth_rank, blocks, greedy, hosted
from romacli.types import Pair, Schedule, Step

SMALLEST_CAPACITY = 2
# Share of all possible pairs above which a list is processed in blocks.
DENSE = 0.25


def plan(pairs: Sequence[Pair], capacity: int) -> Schedule:
    """A schedule that runs every pair once, with at most `capacity` images in memory and few loads.

    It never loads more than each image once plus one image per pair, and depends only on its arguments.

    Raises:
        UsageError: the capacity is too small for one pair.
    """
    if capacity < SMALLEST_CAPACITY:
        raise UsageError(f"memory for {capacity} image is too little for a pair. Give the cache more memory.")
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    number = {name: index for index, name in enumerate(names)}
    edges = [(number[a], number[b]) for a, b in pairs]
    best: _Replay | None = None
    for order in _candidates(edges, len(names), capacity):
        replay = _Replay(order, len(names), capacity)
        if best is None or replay.loads < best.loads:
            best = replay
        if best.loads == len(names):
            break
    written = {frozenset(edge): pair for edge, pair in zip(edges, pairs, strict=True)}
    return best.schedule(names, written) if best else Schedule((), 0)


def fewest_loads(num_images: int, num_pairs: int, capacity: int) -> int:
    """A lower bound on the loads of any schedule: each further image meets at most capacity - 1 others."""
    first = capacity * (capacity - 1) // 2
    return max(num_images, capacity + -((first - num_pairs) // (capacity - 1)) if num_pairs > first else 0)


def _candidates(edges: Sequence[Edge], count: int, capacity: int) -> Iterator[Sequence[Edge]]:
    if not edges:
        return
    yield edges
    if len(edges) > DENSE * count * (count - 1) / 2:
        yield blocks(edges, capacity)
        return
    rank = bandwidth_rank(edges, count)
    images = np.argsort(rank).tolist()
    ranked = [(a, b) for a, b in rank[np.asarray(edges)].tolist()]
    yield [(images[a], images[b]) for a, b in banded(ranked)]
    for by_share in (True, False):
        order = greedy(ranked, count, capacity, by_share=by_share)
        if order is not None:
            found = [(images[a], images[b]) for a, b in order]
            yield found
            yield hosted(found, count)


class _Replay:
    """An order simulated with a cache that knows the future. `loads` counts the images loaded."""

    def __init__(self, order: Sequence[Edge], count: int, capacity: int) -> None:
        self._order = order
        self._moves: list[tuple[int, list[int], list[int]]] = []  # index in the order, released, loaded
        self._left: list[int] = []
        self.loads = 0
        self._run(count, capacity)

    def _run(self, count: int, capacity: int) -> None:
        upcoming = _next_uses(self._order)
        held = [False] * count
        next_use = [0] * count
        furthest: list[int] = []  # entries: -(next use) * count - image
        num_held = 0
        for index, (pair, uses) in enumerate(zip(self._order, upcoming, strict=True)):
            loaded = [image for image in pair if not held[image]]
            if loaded:
                released: list[int] = []
                kept: list[int] = []
                while num_held + len(loaded) > capacity:
                    entry = heapq.heappop(furthest)
                    use, image = divmod(-entry, count)
                    if not held[image] or next_use[image] != use:
                        continue
                    if image in pair:
                        kept.append(entry)
                        continue
                    held[image] = False
                    num_held -= 1
                    released.append(image)
                for entry in kept:
                    heapq.heappush(furthest, entry)
                for image in loaded:
                    held[image] = True
                num_held += len(loaded)
                self.loads += len(loaded)
                self._moves.append((index, released, loaded))
            for image, use in zip(pair, uses, strict=True):
                next_use[image] = use
                heapq.heappush(furthest, -use * count - image)
        self._left = [image for image in range(count) if held[image]]

    def schedule(self, names: Sequence[str], written: dict[frozenset[int], Pair]) -> Schedule:
        """The schedule with image names, each pair as given."""
        steps = []
        ends = [index for index, _, _ in self._moves[1:]] + [len(self._order)]
        for (start, released, loaded), end in zip(self._moves, ends, strict=True):
            steps.append(
                Step(
                    tuple(names[image] for image in released),
                    tuple(names[image] for image in loaded),
                    tuple(written[frozenset(edge)] for edge in self._order[start:end]),
                )
            )
        steps.append(Step(tuple(names[image] for image in self._left), (), ()))
        return Schedule(tuple(steps), self.loads)


def _next_uses(order: Sequence[Edge]) -> list[list[int]]:
    """For both images of each pair, the index of the pair that needs it next.

    Images that are not needed again get indices past the end, larger the longer ago they were last needed, so that
    images that no waiting batch can contain are released first.
    """
    images = np.asarray(order, np.int64).ravel()
    at = np.arange(images.size) // 2
    sorted_by_image = np.argsort(images, kind="stable")
    uses = 2 * len(order) - at
    same = images[sorted_by_image[:-1]] == images[sorted_by_image[1:]]
    uses[sorted_by_image[:-1][same]] = at[sorted_by_image[1:][same]]
    rows: list[list[int]] = uses.reshape(-1, 2).tolist()
    return rows
