"""Pairs whose verified matches third images contradict."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import combinations

import numpy as np
from support.walls import GRID, SIZE, same_wall, warp

from romacli.filter.judge import judge_pairs
from romacli.filter.lattice import Edge, Views
from romacli.filter.verified import find_contradicted, find_contradicted_matches
from romacli.geometry.warp import cell_centres, decode_targets, encode_targets
from romacli.types import CompactWarp, Pair

# Views of one wall, the last with hardly half of it in common with the first; one pair leads elsewhere in parts.
NAMES, WRONG = [f"front/{k}" for k in (0, 1, 2, 5)], ("front/0", "front/2")


def partly_wrong(pair: Pair, *, share: float) -> CompactWarp:
    """A right warp but for the upper share of both images, which is matched 90 px further down."""
    right = warp(pair)
    if pair != WRONG:
        return right
    rows = round(share * GRID[0])
    codes = []
    for targets in (right.target_AB, right.target_BA):
        moved = decode_targets(targets, SIZE)
        moved[:rows, :, 1] += 90
        codes.append(encode_targets(moved, SIZE))
    return replace(right, target_AB=codes[0], target_BA=codes[1])


def views_of(share: float, names: Collection[str] = NAMES) -> Views:
    return Views(combinations(sorted(names), 2), lambda pair: partly_wrong(pair, share=share))


def all_inliers(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """All matches of a pair's right warp, as if its geometry explained them."""
    record = warp(pair)
    is_matched = record.weight_AB > 0
    ends = cell_centres(GRID, SIZE)[is_matched], decode_targets(record.target_AB, SIZE)[is_matched]
    return ends[0] / SIZE, ends[1] / SIZE


def contradicted(views: Views, doubtful: Collection[Edge] | None = None) -> dict[Pair, float]:
    found = find_contradicted(views, views.edges, views.edges if doubtful is None else doubtful, all_inliers)
    return {views.pair_of(edge): share for edge, share in found.items()}


def test_a_pair_is_contradicted_where_ways_over_other_images_end_elsewhere() -> None:
    assert contradicted(views_of(0.0)) == {}
    assert contradicted(views_of(0.15)) == {}
    found = contradicted(views_of(0.5))
    assert found.keys() == {WRONG}
    assert 0.35 < found[WRONG] < 0.65


def test_a_pair_that_is_taken_out_no_longer_testifies_about_others() -> None:
    views = views_of(1.0)
    assert contradicted(views, [(0, 1)]).keys() == {("front/0", "front/1")}
    assert contradicted(views).keys() == {WRONG}


def test_pairs_for_which_no_third_image_speaks_any_longer_follow() -> None:
    found = contradicted(views_of(1.0, NAMES[:3]))
    assert found.keys() == {("front/0", "front/1"), WRONG, ("front/1", "front/2")}


def test_matches_that_are_contradicted_are_told_for_each_pair() -> None:
    views = views_of(0.15)
    found = find_contradicted_matches(views, views.edges, views.edges, all_inliers)
    assert views.pair_of(edge := views.edges[1]) == WRONG
    one, other = (ends[:, 1] for ends in all_inliers(WRONG))
    assert found[edge][(one < 0.1) & (other < 0.1)].all()
    assert not found[edge][(one > 0.25) & (other > 0.25)].any()


def test_nothing_is_said_of_pairs_that_are_not_verified_or_seen_by_no_third_image() -> None:
    views = views_of(1.0)
    assert find_contradicted(views, views.edges, views.edges, lambda pair: None) == {}
    assert contradicted(views_of(1.0, WRONG)) == {}


def test_among_look_alikes_a_contradicted_pair_is_dropped_with_its_reason() -> None:
    names = [f"{wall}/{k}" for wall in ("back", "front") for k in range(6)]
    views = views_of(0.36, names)
    judged = {views.pair_of(edge): one for edge, one in judge_pairs(views, read_inliers=all_inliers).pairs.items()}
    assert {pair for pair in judged if same_wall(pair) and not judged[pair].is_kept} == {WRONG}
    assert "third images contradict" in judged[WRONG].reason


def test_a_pair_that_is_contradicted_in_few_places_is_kept_without_these() -> None:
    names = [f"{wall}/{k}" for wall in ("back", "front") for k in range(6)]
    judged = judge_pairs(views := views_of(0.15, names), read_inliers=all_inliers).pairs
    told = {views.pair_of(edge): one for edge, one in judged.items()}
    assert all(one.is_kept for pair, one in told.items() if same_wall(pair))
    assert told[WRONG].withheld > 100
    assert not any(one.withheld for pair, one in told.items() if not same_wall(pair))


def test_without_look_alikes_no_pair_is_dropped() -> None:
    judged = judge_pairs(views_of(0.5), read_inliers=all_inliers).pairs
    assert all(one.is_kept for one in judged.values())
