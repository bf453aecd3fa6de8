"""Every pair source: rules that all follow, plain-loop oracles, and places where distances go wrong."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_scene import look_at

from romacli.errors import InputError, UsageError
from romacli.geometry.globe import chord_m, to_metres
from romacli.pairs import nearest as nearest_module
from romacli.pairs.covisible import covisible
from romacli.pairs.exhaustive import exhaustive
from romacli.pairs.merge import merge
from romacli.pairs.poses import Frustum, posed
from romacli.pairs.positions import read_positions
from romacli.pairs.retrieval import RetrievalOptions, retrieve
from romacli.pairs.sequential import sequential
from romacli.pairs.spatial import spatial
from romacli.types import PairList


def names_of(count):
    return [f"folder/{index}.jpg" for index in range(count)]


def unit_rows(count, seed, dim=6):
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def frusta(count, seed):
    rng = np.random.default_rng(seed)
    poses = [look_at(rng.normal(0, 3, 3), rng.normal(0, 1, 3)) for _ in range(count)]
    return [Frustum(pose.rotation, pose.translation, -0.5, -0.4, 0.5, 0.4, 1, 8) for pose in poses]


def observations(count, seed):
    rng = np.random.default_rng(seed)
    return np.stack((rng.integers(0, count, 60), rng.integers(0, 25, 60)), axis=1)


SOURCES = {
    "exhaustive": lambda names, k, seed: exhaustive(names),
    "sequential": lambda names, k, seed: sequential(names, overlap=k, quadratic=bool(seed % 2)),
    "retrieval": lambda names, k, seed: retrieve(
        names, unit_rows(len(names), seed), RetrievalOptions(k, mutual=bool(seed % 2), whiten=bool(seed % 3))
    ),
    "loops": lambda names, k, seed: merge(
        [
            sequential(names, overlap=2),
            retrieve(names, unit_rows(len(names), seed), RetrievalOptions(k), queries=names[::3], min_gap=2),
        ]
    )[0],
    "spatial": lambda names, k, seed: spatial(
        names, np.random.default_rng(seed).normal(size=(len(names), 3)), max_distance_m=1.5, max_num_neighbors=k
    ),
    "poses": lambda names, k, seed: posed(
        names, frusta(len(names), seed), num_matched=k, max_rotation_deg=90, min_frustum_overlap=0.05
    ),
    "covisible": lambda names, k, seed: covisible(
        names, observations(len(names), seed), num_matched=k, min_shared_points=2
    ),
}


@pytest.mark.parametrize("source", SOURCES)
@settings(max_examples=30)
@given(count=st.integers(2, 14), k=st.integers(1, 16), seed=st.integers(0, 1000))
def test_pairs_are_unique_undirected_of_two_images_of_the_folder_and_always_the_same(source, count, k, seed):
    names = names_of(count)
    pairs = SOURCES[source](names, k, seed).pairs
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    assert all(names.index(first) < names.index(second) for first, second in pairs)
    assert SOURCES[source](names, k, seed).pairs == pairs


@given(
    count=st.integers(2, 12),
    k=st.integers(1, 12),
    seed=st.integers(0, 1000),
    mutual=st.booleans(),
    gap=st.integers(0, 3),
)
def test_retrieval_equals_a_plain_loop(count, k, seed, mutual, gap):
    names, rows = names_of(count), unit_rows(count, seed)
    scores = rows @ rows.T
    best = [
        sorted((j for j in range(count) if abs(i - j) > gap), key=lambda j: -scores[i, j])[:k] for i in range(count)
    ]
    directed = {(i, j) for i in range(count) for j in best[i] if scores[i, j] >= -0.2}
    if mutual:
        directed &= {(j, i) for i, j in directed}
    expected = {(names[min(pair)], names[max(pair)]) for pair in directed}
    options = RetrievalOptions(k, min_score=-0.2, mutual=mutual)
    assert set(retrieve(names, rows, options, min_gap=gap).pairs) == expected


def test_blocks_do_not_change_what_is_found(monkeypatch):
    names, rows = names_of(50), unit_rows(50, 3)
    whole = retrieve(names, rows, RetrievalOptions(4))
    monkeypatch.setattr(nearest_module, "_BLOCK_BYTES", 1)
    assert retrieve(names, rows, RetrievalOptions(4)) == whole


def test_queries_find_partners_in_the_database_alone():
    names, rows = names_of(20), unit_rows(20, 1)
    queries, database = names[:4], names[10:]
    found = retrieve(names, rows, RetrievalOptions(3), queries=queries, database=database).pairs
    assert len(found) == 12
    assert {first for first, _ in found} == set(queries)
    assert {second for _, second in found} <= set(database)


def test_the_image_that_looks_the_same_comes_first():
    rows = unit_rows(8, 0)
    rows[7] = rows[2]
    assert ("folder/2.jpg", "folder/7.jpg") in retrieve(names_of(8), rows, RetrievalOptions(1)).pairs


def test_more_matched_than_there_are_images_is_refused_by_name():
    with pytest.raises(UsageError, match="--num-matched is 5, but each image has only 4 possible partners"):
        RetrievalOptions(5).check(5)
    RetrievalOptions(4).check(5)
    RetrievalOptions().check(2)


def test_whitening_evens_out_a_direction_that_drowns_the_others():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 8)).astype(np.float32)
    rows[:, 0] = 30 + 10 * rng.normal(size=200)
    twins = rows + np.eye(8, dtype=np.float32)[0] * rng.normal(0, 8, (200, 1)).astype(np.float32)
    both = np.concatenate((rows, twins))
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    names = names_of(400)
    truth = {(names[i], names[i + 200]) for i in range(200)}
    plain = len(truth & set(retrieve(names, both, RetrievalOptions(1)).pairs))
    white = len(truth & set(retrieve(names, both, RetrievalOptions(1, whiten=True)).pairs))
    assert white > plain


def test_the_approximate_search_finds_nearly_what_the_exact_one_does(monkeypatch):
    pytest.importorskip("faiss")
    from romacli.pairs import retrieval

    names, rows = names_of(3000), unit_rows(3000, 0, dim=4)
    exact = set(retrieve(names, rows, RetrievalOptions(5)).pairs)
    monkeypatch.setattr(retrieval, "APPROXIMATE_ABOVE", 100)
    found = set(retrieve(names, rows, RetrievalOptions(5)).pairs)
    assert len(exact & found) > 0.8 * len(exact)


METRES_PER_DEGREE = 111_320


@pytest.mark.parametrize(
    ("first", "second", "metres"),
    [
        ((0, 179.9999), (0, -179.9999), 0.0002 * METRES_PER_DEGREE),
        ((60, 10), (60, 10.001), 0.001 * METRES_PER_DEGREE * 0.5015),
        ((90, 0), (90, 135), 0),
        ((89.9999, 0), (89.9999, 180), 0.0002 * 111_694),
        ((-33.9, 18.4), (-33.9, 18.4), 0),
    ],
)
def test_distances_hold_at_the_date_line_and_the_poles(first, second, metres):
    places = to_metres(np.array([(*first, 0), (*second, 0)], float))
    assert np.linalg.norm(places[0] - places[1]) == pytest.approx(metres, rel=2e-3, abs=1e-3)


def test_far_distances_are_counted_along_the_ground():
    quarter = to_metres(np.array([(0, 0, 0), (0, 90, 0)], float))
    assert np.linalg.norm(quarter[0] - quarter[1]) == pytest.approx(chord_m(10_007_543), rel=2e-3)


@given(count=st.integers(2, 12), k=st.integers(1, 12), limit=st.floats(0.2, 3), seed=st.integers(0, 100))
def test_spatial_equals_a_plain_loop(count, k, limit, seed):
    names, places = names_of(count), np.random.default_rng(seed).normal(size=(count, 3)) + 6e6
    distance = np.linalg.norm(places[:, None] - places, axis=2)
    expected = set()
    for i in range(count):
        near = sorted((j for j in range(count) if j != i), key=lambda j: distance[i, j])[:k]
        expected |= {(names[min(i, j)], names[max(i, j)]) for j in near if distance[i, j] <= limit}
    assert set(spatial(names, places, max_distance_m=limit, max_num_neighbors=k).pairs) == expected


def test_covisible_equals_a_plain_loop():
    names, seen = names_of(10), observations(10, 7)
    points = [set(seen[seen[:, 0] == index, 1]) for index in range(10)]
    expected = {(names[i], names[j]) for i, j in combinations(range(10), 2) if len(points[i] & points[j]) >= 3}
    assert set(covisible(names, seen, num_matched=9, min_shared_points=3).pairs) == expected


def test_covisible_takes_the_images_that_share_most():
    shared = {(0, 1): 5, (0, 2): 3, (0, 3): 1}
    rows = [(image, point) for (a, b), n in shared.items() for point in range(b * 10, b * 10 + n) for image in (a, b)]
    found = covisible(names_of(4), np.array(rows), num_matched=1, min_shared_points=2).pairs
    assert found == (("folder/0.jpg", "folder/1.jpg"), ("folder/0.jpg", "folder/2.jpg"))


def looking(*cameras):
    poses = [look_at(np.array(centre, float), np.array(target, float)) for centre, target in cameras]
    return [Frustum(pose.rotation, pose.translation, -0.5, -0.5, 0.5, 0.5, 2, 10) for pose in poses]


def posed_indices(cameras, **options):
    names = [str(index) for index in range(len(cameras))]
    chosen = {"num_matched": 9, "max_rotation_deg": 180, "min_frustum_overlap": 0.05, **options}
    return {tuple(map(int, pair)) for pair in posed(names, cameras, **chosen).pairs}


def test_cameras_back_to_back_are_no_pair_and_side_by_side_are():
    cameras = looking(((0, 0, 0), (0, 0, 1)), ((0.5, 0, 0), (0.5, 0, 1)), ((0, 0, 0), (0, 0, -1)))
    assert posed_indices(cameras) == {(0, 1)}


def test_cameras_that_face_each_other_fall_to_the_rotation_limit():
    cameras = looking(((0, 0, 0), (0, 0, 1)), ((0, 0, 8), (0, 0, 0)))
    assert posed_indices(cameras) == {(0, 1)}
    assert posed_indices(cameras, max_rotation_deg=90) == set()


def test_the_same_camera_overlaps_wholly_and_a_far_one_not():
    cameras = looking(((0, 0, 0), (0, 0, 1)), ((0, 0, 0), (0, 0, 1)), ((100, 0, 0), (100, 0, 1)))
    assert posed_indices(cameras, min_frustum_overlap=1) == {(0, 1)}
    assert posed_indices(cameras, min_frustum_overlap=0) == {(0, 1)}


def test_merge_counts_what_each_list_adds():
    merged, added = merge(
        [PairList((("a", "b"), ("b", "c"))), PairList((("c", "b"), ("a", "c"))), PairList((("a", "b"),))]
    )
    assert merged.pairs == (("a", "b"), ("b", "c"), ("a", "c"))
    assert added == [2, 1, 0]


def test_positions_with_tabs_commas_spaces_and_byte_order_mark(tmp_path):
    path = tmp_path / "positions.txt"
    path.write_text("\ufeff# name lat lon\na b.jpg\t48.5\t9.0\t300\nç d.jpg, -1, 2\n\ne.jpg 3 4 5\n", encoding="utf-8")
    assert read_positions(path, cartesian=False) == {
        "a b.jpg": (48.5, 9.0, 300.0),
        "ç d.jpg": (-1.0, 2.0, 0.0),
        "e.jpg": (3.0, 4.0, 5.0),
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a.jpg 1", r"positions.txt:1: 1 column after the name 'a.jpg', expected 2 or 3 numbers"),
        ("a.jpg 1 2\na.jpg 3 4", "positions.txt:2: a.jpg already has a position"),
        ("a.jpg 1 nan", "positions.txt:1"),
        ("a.jpg 120 9", "positions.txt:1: 120, 9 is not a latitude"),
        ("name lat lon", "positions.txt:1"),
        ("# nothing", "contains no positions"),
    ],
)
def test_positions_that_make_no_sense_are_named_with_their_line(tmp_path, text, sentence):
    path = tmp_path / "positions.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_positions(path, cartesian=False)
