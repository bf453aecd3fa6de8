from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romacli.errors import UsageError
from romacli.run.schedule import plan
from romacli.types import Pair, Schedule


def exhaustive(count: int) -> list[Pair]:
    return [(str(a), str(b)) for a, b in itertools.combinations(range(count), 2)]


def replay(schedule: Schedule, capacity: int) -> tuple[list[frozenset[str]], int]:
    """The pairs a schedule runs and the images it loads, by a plain simulation that checks every rule."""
    held: set[str] = set()
    ran, loads = [], 0
    for step in schedule.steps:
        assert set(step.release) <= held
        held -= set(step.release)
        assert held.isdisjoint(step.encode)
        held |= set(step.encode)
        loads += len(step.encode)
        assert len(held) <= capacity
        for pair in step.pairs:
            assert set(pair) <= held
            ran.append(frozenset(pair))
    assert not held
    return ran, loads


edges = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 11)).filter(lambda edge: edge[0] < edge[1]), unique=True, min_size=1
)


@given(edges, st.integers(2, 12))
def test_every_pair_runs_once_within_capacity_and_few_loads(graph: list[tuple[int, int]], capacity: int) -> None:
    pairs = [(str(a), str(b)) for a, b in graph]
    schedule = plan(pairs, capacity)
    ran, loads = replay(schedule, capacity)
    assert sorted(map(sorted, ran)) == sorted(map(sorted, pairs))
    assert len(ran) == len(pairs)
    assert loads == schedule.num_encodes <= len(pairs) + len({name for pair in pairs for name in pair})


def test_each_image_is_encoded_once_when_all_fit() -> None:
    assert plan(exhaustive(20), 20).num_encodes == 20


@pytest.mark.parametrize(("count", "capacity"), [(60, 10), (60, 20), (40, 3)])
def test_exhaustive_list_is_near_the_lower_bound(count: int, capacity: int) -> None:
    pairs = exhaustive(count)
    bound = max(count, capacity + (len(pairs) - capacity * (capacity - 1) / 2) / (capacity - 1))
    assert plan(pairs, capacity).num_encodes <= 1.25 * bound


def test_sequential_list_needs_no_second_encode() -> None:
    pairs = [(str(a), str(b)) for a in range(100) for b in range(a + 1, min(a + 6, 100))]
    assert plan(pairs, 7).num_encodes == 100


def test_room_for_one_image_is_refused() -> None:
    with pytest.raises(UsageError, match="memory for 1 image is too little for a pair"):
        plan(exhaustive(3), 1)
