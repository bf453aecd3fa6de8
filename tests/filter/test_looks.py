"""Holes of warps seen in the photographs: whether these differ there, or the matcher just found nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from support.walls import GRID, POSTERS, SIZE, on_poster, place_of, same_wall, wall_of, warp

from romacli.filter.judge import judge_pairs, may_miss
from romacli.filter.lattice import Lattice, Views
from romacli.filter.looks import copy_size, likeness, small_copy
from romacli.filter.missing import count_witnesses, find_missing, without_bridged
from romacli.filter.unique import measure_unique
from romacli.geometry.warp import cell_centres
from romacli.types import CompactWarp, Pair

LATTICE = Lattice.over(SIZE)


def texture(seed: int, size: tuple[int, int] = (800, 240)) -> np.ndarray:
    rough = np.random.default_rng(seed).integers(0, 255, (size[1] // 8, size[0] // 8, 3)).astype(np.uint8)
    return cv2.resize(rough, size, interpolation=cv2.INTER_CUBIC)


def wall(name: str) -> np.ndarray:
    """(240, 800, 3): one texture for all walls, and a poster of its own."""
    picture, (left, top, width, height) = texture(0).copy(), POSTERS[name]
    picture[top : top + height, left : left + width] = texture(len(name))[:height, :width]
    return picture


def copy(name: str, lattice: Lattice) -> np.ndarray:
    return small_copy(wall(wall_of(name))[:, place_of(name) : place_of(name) + SIZE[0]], lattice)


def patchy(pair: Pair) -> CompactWarp:
    """The warp of two photographs, without matches in a part of the wall that differs from pair to pair."""
    record, rng = warp(pair), np.random.default_rng([ord(letter) for letter in "".join(pair)])
    left, top = max(map(place_of, pair)) + int(rng.integers(20, 70)), int(rng.integers(20, 40))
    for name, weights in zip(pair, (record.weight_AB, record.weight_BA), strict=True):
        points = cell_centres(GRID, SIZE) + (place_of(name), 0)
        weights[on_poster(points, {"hole": (left, top, 70, 60)})] = 0
    return record


def shares(views: Views) -> dict[Pair, float]:
    witnesses = count_witnesses(views)
    return {views.pair_of(edge): find_missing(views, edge, witnesses).share for edge in views.edges}


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0), (0.6, 40)])
def test_places_look_alike_in_another_light_and_near_where_the_warp_leads(gain: float, offset: int) -> None:
    one = small_copy(texture(1, SIZE), LATTICE)
    other = (one * gain + offset).astype(np.uint8)
    assert np.quantile(likeness(one, other, LATTICE, LATTICE.places() + (0.3, -0.3)), 0.05) > 0.95


def test_other_places_do_not_look_alike() -> None:
    one, other = (small_copy(texture(seed, SIZE), LATTICE) for seed in (1, 2))
    assert np.median(likeness(one, other, LATTICE, LATTICE.places())) < 0.4
    assert np.median(likeness(one, one, LATTICE, LATTICE.places() + (4, 0))) < 0.4


def test_a_hole_in_which_the_photographs_look_alike_is_not_missing() -> None:
    names = [f"{wall}/{k}" for wall in POSTERS for k in range(6)]
    pairs = [(a, b) for a in names for b in names if a < b]
    plain, seen = shares(Views(pairs, patchy)), shares(Views(pairs, patchy, copy))
    assert np.mean([share for pair, share in plain.items() if same_wall(pair)]) > 0.05
    assert np.mean([share for pair, share in seen.items() if same_wall(pair)]) < 0.01
    assert seen["back/2", "front/2"] > 0.07


def test_wrong_pairs_do_not_excuse_each_other_where_photographs_show_what_is_missing() -> None:
    overlaps = np.r_[np.linspace(0.5, 0.2, 30), np.linspace(0.1, 0.05, 20)]
    shares = np.r_[np.full(30, 0.01), np.linspace(0.35, 0.45, 20)]  # all pairs with little overlap are wrong
    may = may_miss(shares, overlaps, np.ones(50, np.intp))
    assert (shares <= may).tolist() == [True] * 30 + [False] * 20


def test_pairs_of_a_patchy_matcher_are_told_apart_by_the_photographs() -> None:
    names = [f"{wall}/{k}" for wall in POSTERS for k in range(6)]
    pairs = [(a, b) for a in names for b in names if a < b]
    views = Views(pairs, patchy, copy)
    judged = {views.pair_of(edge): one for edge, one in judge_pairs(views).pairs.items()}
    assert {pair for pair, one in judged.items() if one.is_kept} == {pair for pair in judged if same_wall(pair)}
    assert "photographs differ" in judged["back/2", "front/2"].reason


def test_a_place_that_warps_over_a_third_image_match_is_not_surely_missing() -> None:
    def read(pair: Pair) -> CompactWarp:
        record = warp(pair)
        if pair == ("front/1", "front/2"):
            for name, weights in zip(pair, (record.weight_AB, record.weight_BA), strict=True):
                points = cell_centres(GRID, SIZE) + (place_of(name), 0)
                weights[on_poster(points, POSTERS)] = 0
        return record

    names = ["back/1", "back/2", "front/1", "front/2", "front/3"]
    views = Views([(a, b) for a in names for b in names if a < b], read)
    witnesses = count_witnesses(views)
    for pair, is_bridged in ((("front/1", "front/2"), True), (("back/2", "front/2"), False)):
        edge = next(edge for edge in views.edges if views.pair_of(edge) == pair)
        found = find_missing(views, edge, witnesses)
        surely = without_bridged(views, edge, found)
        assert found.missing > 20
        assert surely.missing < 0.2 * found.missing if is_bridged else surely.missing > 0.8 * found.missing
        assert surely.missing == sum(int(hole.sum()) for hole in surely.holes)


def test_without_one_of_the_photographs_warps_alone_tell() -> None:
    pairs = [("back/2", "front/2"), ("back/2", "back/3"), ("front/2", "front/3")]
    alone = Views(pairs, warp, lambda name, lattice: copy(name, lattice) if wall_of(name) == "back" else None)
    assert shares(alone)["back/2", "front/2"] == shares(Views(pairs, warp))["back/2", "front/2"] > 0.1
    seen = [find_missing(alone, edge, count_witnesses(alone)).is_seen for edge in alone.edges]
    assert seen == [True, False, False]


def test_photographs_that_look_alike_nowhere_tell_nothing() -> None:
    def other_season(name: str, lattice: Lattice) -> np.ndarray:
        return small_copy(texture(place_of(name) + 1000 * len(wall_of(name)), SIZE), lattice)

    pairs = [("back/2", "front/2"), ("back/2", "back/3"), ("front/2", "front/3")]
    assert shares(Views(pairs, warp, other_season)) == shares(Views(pairs, warp))


def test_a_small_copy_has_the_size_that_it_says() -> None:
    assert small_copy(texture(0), LATTICE).shape == (*copy_size(LATTICE)[::-1], 3)


def test_two_pairs_that_miss_a_detail_suffice_where_photographs_show_it() -> None:
    names = [*(f"front/{k}" for k in range(6)), "back/1", "back/2"]
    pairs = [(a, b) for a in names for b in names if a < b]
    doubted = [pair for pair in pairs if not same_wall(pair)]

    def unique(views: Views) -> float:
        witnesses = count_witnesses(views)
        found = {edge: find_missing(views, edge, witnesses) for edge in views.edges}
        told = measure_unique(views, found, [edge for edge in views.edges if views.pair_of(edge) in doubted])
        return dict(zip(map(views.pair_of, views.edges), told.tolist(), strict=True))["front/1", "front/2"]

    assert unique(Views(pairs, warp)) == 0
    assert unique(Views(pairs, warp, copy)) > 5
