"""Exhaustive and sequential lists against hand-worked and plain-loop oracles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from romacli.errors import UsageError
from romacli.pairs.covisible import clusters
from romacli.pairs.exhaustive import exhaustive
from romacli.pairs.sequential import sequential


def steps_of(pairs, names):
    return {names.index(second) - names.index(first) for first, second in pairs.pairs}


def test_exhaustive_pairs_every_image_with_every_later_one():
    assert exhaustive(["c", "a", "b"]).pairs == (("c", "a"), ("c", "b"), ("a", "b"))
    assert exhaustive(["a"]).pairs == ()


def test_sequential_pairs_follow_the_order_given():
    names = ["9", "10", "1", "2"]
    assert sequential(names, overlap=2).pairs == (("9", "10"), ("9", "1"), ("10", "1"), ("10", "2"), ("1", "2"))


def test_quadratic_adds_powers_of_two_to_the_overlap():
    names = [str(i) for i in range(40)]
    assert steps_of(sequential(names, overlap=3), names) == {1, 2, 3}
    assert steps_of(sequential(names, overlap=3, quadratic=True), names) == {1, 2, 3, 4}
    assert steps_of(sequential(names, overlap=5, quadratic=True), names) == {1, 2, 3, 4, 5, 8, 16}


@given(count=st.integers(0, 20), overlap=st.integers(1, 25), quadratic=st.booleans())
def test_sequential_equals_a_plain_loop(count, overlap, quadratic):
    names = [f"{i}.jpg" for i in range(count)]
    powers = {2**power for power in range(overlap)} if quadratic else set()
    expected = [
        (names[i], names[j]) for i in range(count) for j in range(i + 1, count) if j - i <= overlap or j - i in powers
    ]
    assert list(sequential(names, overlap=overlap, quadratic=quadratic).pairs) == expected


def test_an_overlap_beyond_the_last_image_is_exhaustive():
    names = ["a", "b", "c", "d"]
    assert sequential(names, overlap=10**9, quadratic=True) == exhaustive(names)


@pytest.mark.parametrize("overlap", [0, -1])
def test_an_overlap_below_one_is_refused(overlap):
    with pytest.raises(UsageError, match=f"--overlap is {overlap}; .* must be at least 1"):
        sequential(["a", "b"], overlap=overlap)


def test_images_are_grouped_by_shared_points_through_others_too():
    seen = [np.array(ids, np.int64) for ids in ([1, 2], [5], [2, 3], [9], [3, 9], [])]
    assert clusters(seen) == [[0, 2, 3, 4], [1], [5]]
    assert clusters([]) == []
