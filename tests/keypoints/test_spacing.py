import numpy as np
import pytest

from romacli.keypoints.spacing import choose_spread, close_pairs, seed_lattice, suppress


def suppress_by_loop(points: np.ndarray, scores: np.ndarray, radius: float) -> np.ndarray:
    kept = np.zeros(len(points), bool)
    for k in np.argsort(-scores, kind="stable"):
        kept[k] = not (np.linalg.norm(points[kept] - points[k], axis=1) <= radius).any()
    return kept


@pytest.mark.parametrize("radius", [0.5, 3.0, 40.0])
def test_close_pairs_equal_those_of_all_distances(radius):
    rng = np.random.default_rng(0)
    queries, points = rng.uniform(-20, 80, (150, 2)), rng.uniform(0, 100, (200, 2))
    rows, others = close_pairs(queries, points, radius)
    distances = np.linalg.norm(queries[:, None] - points[None], axis=-1)
    expected = np.argwhere(distances <= radius)
    assert sorted(zip(rows, others, strict=True)) == [tuple(row) for row in expected]


def test_close_pairs_of_nothing_are_none():
    points, nothing = np.ones((3, 2)), np.zeros((0, 2))
    for queries, others in ((points, nothing), (nothing, points), (nothing, nothing)):
        assert [len(rows) for rows in close_pairs(queries, others, 1.0)] == [0, 0]


@pytest.mark.parametrize("levels", [3, 10_000])
@pytest.mark.parametrize("radius", [1.0, 4.0])
def test_suppression_equals_a_greedy_loop(levels, radius):
    rng = np.random.default_rng(levels)
    points = rng.uniform(0, 60, (400, 2)).astype(np.float32)
    scores = rng.integers(0, levels, 400).astype(float)
    np.testing.assert_array_equal(suppress(points, scores, radius), suppress_by_loop(points, scores, radius))


def test_of_points_in_one_place_the_best_stays():
    points = np.full((5, 2), 7.0)
    assert suppress(points, np.array([1, 4, 4, 0, 2]), 1.0).tolist() == [False, True, False, False, False]


def test_suppression_of_no_points_keeps_none():
    assert suppress(np.zeros((0, 2)), np.zeros(0), 1.0).tolist() == []


def test_lattice_depends_on_name_and_seed_only_and_covers_the_image():
    places = seed_lattice((320, 240), 14.0, name="a.jpg", seed=0)
    np.testing.assert_array_equal(places, seed_lattice((320, 240), 14.0, name="a.jpg", seed=0))
    assert (places != seed_lattice((320, 240), 14.0, name="b.jpg", seed=0)).any()
    assert (places != seed_lattice((320, 240), 14.0, name="a.jpg", seed=1)).any()
    assert ((places >= 0) & (places < (320, 240))).all()
    everywhere = np.stack(np.meshgrid(np.arange(0, 320, 8.0), np.arange(0, 240, 8.0)), axis=-1).reshape(-1, 2)
    covered, _ = close_pairs(everywhere, places, 1.3 * 14)
    assert len(np.unique(covered)) == len(everywhere)


@pytest.fixture
def crowd_and_few():
    """2,000 good points in a corner of an image, 200 poor ones all over it."""
    rng = np.random.default_rng(3)
    points = np.concatenate((rng.uniform(0, 40, (2000, 2)), rng.uniform(0, (320, 240), (200, 2))))
    return points, np.concatenate((rng.uniform(5, 9, 2000), rng.uniform(1, 2, 200)))


def cells(points: np.ndarray) -> set[tuple[int, int]]:
    """The cells, 32 by 32 of an image of 320 x 240 px, that contain a point."""
    return {(int(x), int(y)) for x, y in points / (10, 7.5)}


def test_chosen_points_are_as_many_as_allowed_and_leave_no_place_empty(crowd_and_few):
    points, scores = crowd_and_few
    rows = choose_spread(points, scores, (320, 240), 1000)
    assert len(rows) == 1000
    assert (np.diff(rows) > 0).all()
    assert cells(points[rows]) == cells(points)


def test_room_left_over_goes_to_the_best(crowd_and_few):
    points, scores = crowd_and_few
    rows = choose_spread(points, scores, (320, 240), 1000)
    best_of_cells = choose_spread(points, scores, (320, 240), len(cells(points)))
    left_out = np.setdiff1d(np.arange(2200), rows)
    assert scores[np.setdiff1d(rows, best_of_cells)].min() > scores[left_out].max()


def test_points_that_all_have_room_are_all_chosen(crowd_and_few):
    points, scores = crowd_and_few
    np.testing.assert_array_equal(choose_spread(points, scores, (320, 240), 2200), np.arange(2200))


@pytest.mark.parametrize("count", [0, 1, 50])
def test_little_room_goes_to_the_best_of_their_cells(crowd_and_few, count):
    points, scores = crowd_and_few
    rows = choose_spread(points, scores, (320, 240), count)
    assert len(rows) == count
    assert len(cells(points[rows])) == count
