from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from romacli.errors import StoreError, UsageError
from romacli.pairs.exhaustive import exhaustive
from romacli.run.options import Shard, parse_shard
from romacli.run.schedule import plan
from romacli.run.shard import order_of_work, piece, record_capacity, recorded_capacity, shard_work

names = st.integers(0, 30).map(lambda k: f"{k}.jpg")
pair_lists = st.lists(st.frozensets(names, min_size=2, max_size=2), unique=True, max_size=60).map(
    lambda pairs: [tuple(sorted(pair)) for pair in pairs]
)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(pairs=pair_lists, count=st.integers(1, 70), capacity=st.integers(2, 40))
def test_shards_are_disjoint_and_complete_and_of_even_size(pairs, count, capacity):
    order = order_of_work(pairs, capacity)
    pieces = [piece(order, Shard(index, count)) for index in range(count)]
    assert [pair for part in pieces for pair in part] == order
    assert sorted(order) == sorted(pairs)
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_a_piece_of_the_plan_needs_few_images():
    pairs = exhaustive([f"{k}.jpg" for k in range(60)]).pairs
    order = order_of_work(pairs, 20)
    encodes = sum(plan(piece(order, Shard(index, 8)), 20).num_encodes for index in range(8))
    given = sum(plan(pairs[index::8], 20).num_encodes for index in range(8))
    assert encodes < 0.6 * given


@pytest.mark.parametrize("text", ["", "1", "2/2", "3/2", "-1/2", "0/0", "a/b", "0/2/3", "٣/٤", "0.5/2", "1/9999999999"])
def test_what_is_no_piece_is_named(text):
    with pytest.raises(UsageError, match="is not valid. Write i/n, with i from 0"):
        parse_shard(text)


def test_pieces_are_read():
    assert parse_shard("0/1") == Shard(0, 1)
    assert parse_shard(" 7/12 ") == Shard(7, 12)


def test_the_capacity_of_the_first_shard_is_kept(tmp_path: Path):
    path = tmp_path / "shards.json"
    own = recorded_capacity(path)
    record_capacity(path, 33)
    record_capacity(path, own)
    assert recorded_capacity(path) == 33
    path.write_text("{}")
    with pytest.raises(StoreError, match=r"shards.json is damaged"):
        recorded_capacity(path)


def test_only_shards_of_one_cut_tolerate_each_other():
    pairs = [("a", "b"), ("b", "c")]
    first = shard_work(Shard(0, 2), pairs, 100)
    assert first.tolerates(shard_work(Shard(1, 2), pairs, 100))
    for other in (
        shard_work(Shard(0, 2), pairs, 100),
        shard_work(Shard(1, 3), pairs, 100),
        shard_work(Shard(1, 2), pairs[:1], 100),
        shard_work(Shard(1, 2), pairs, 99),
    ):
        assert not first.tolerates(other)
