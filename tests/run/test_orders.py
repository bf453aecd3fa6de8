from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from romacli.run.orders import banded, bandwidth_rank, blocks, greedy, hosted
from romacli.run.schedule import fewest_loads, plan

COUNT = 12
edges = st.lists(
    st.tuples(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1)).filter(lambda edge: edge[0] < edge[1]),
    unique=True,
    min_size=1,
)


def by_hand(order: list[tuple[int, int]], capacity: int) -> int:
    """Loads of an order by Belady's rule, without a heap."""
    held: set[int] = set()
    loads = 0
    for index, pair in enumerate(order):
        loads += len(set(pair) - held)
        held |= set(pair)

        def next_use(image: int, index: int = index) -> int:
            return next((i for i in range(index + 1, len(order)) if image in order[i]), len(order))

        while len(held) > capacity:
            held.remove(max(held - set(pair), key=next_use))
    return loads


@given(edges, st.integers(2, 6))
def test_every_order_has_every_pair_once(graph: list[tuple[int, int]], capacity: int) -> None:
    orders = [blocks(graph, capacity), banded(graph), hosted(graph, COUNT)]
    orders += [greedy(graph, COUNT, capacity, by_share=by_share) for by_share in (True, False)]
    for order in orders:
        if order is not None:
            assert sorted(tuple(sorted(pair)) for pair in order) == sorted(graph)


@given(edges, st.integers(2, 6))
def test_plan_loads_no_more_than_its_orders(graph: list[tuple[int, int]], capacity: int) -> None:
    planned = plan([(str(a), str(b)) for a, b in graph], capacity).num_encodes
    assert planned <= by_hand(graph, capacity)
    assert planned >= fewest_loads(len({image for edge in graph for image in edge}), len(graph), capacity)


def test_rank_of_a_shuffled_path_brings_neighbours_together() -> None:
    place = np.random.default_rng(0).permutation(50)
    path = [(int(place[i]), int(place[i + 1])) for i in range(49)]
    rank = bandwidth_rank(path, 50)
    assert sorted(rank) == list(range(50))
    assert all(abs(rank[a] - rank[b]) == 1 for a, b in path)


@pytest.mark.parametrize("capacity", [2, 3])
def test_a_star_is_not_gone_round_for_ever(capacity: int) -> None:
    star = [(0, other) for other in range(1, 40)]
    order = greedy(star, 40, capacity, by_share=True)
    assert order is not None
    assert plan([(str(a), str(b)) for a, b in star], capacity).num_encodes == 40


def test_an_image_of_many_pairs_comes_to_its_partners() -> None:
    """A walk of 200 images, every tenth of which sees two distant places, ten images at each."""
    walk = [(a, a + 1) for a in range(199)]
    seen_again = [
        (hub, (hub + away + step) % 200) for hub in range(0, 200, 10) for away in (60, 110) for step in range(10)
    ]
    graph = sorted({(min(pair), max(pair)) for pair in walk + seen_again})
    visits = 2 * 20
    assert by_hand(hosted(graph, 200), 12) <= 200 + visits + 12
    assert by_hand(banded(graph), 12) > 2 * 200


def test_covisibility_graph_is_near_the_bound_however_it_is_listed() -> None:
    """A grid of places, each paired with its neighbours."""
    side = 30
    around = [(0, 1), (1, 0), (1, 1), (1, -1)]
    graph = [
        (f"{x},{y}", f"{x + dx},{y + dy}")
        for x, y in itertools.product(range(side), range(side))
        for dx, dy in around
        if 0 <= x + dx < side and 0 <= y + dy < side
    ]
    shuffled = [graph[i] for i in np.random.default_rng(0).permutation(len(graph))]
    loads = plan(shuffled, 16).num_encodes
    assert loads < 1.7 * side**2
    assert plan(shuffled, side + 3).num_encodes < 1.15 * side**2
