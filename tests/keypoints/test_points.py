"""Point pairs that share keypoints because their coordinates are equal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from romacli.keypoints.aggregate import Aggregation
from romacli.keypoints.points import by_points
from romacli.types import Correspondences, Keypoints, Pair

NAMES = ("a", "b", "c")


class Listener:
    def begin(self, title: str, total: int) -> None:
        self.left = total

    def advance(self, count: int = 1) -> None:
        self.left -= count


@pytest.fixture
def places() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.uniform(0, 300, (40, 2)).astype(np.float32) for name in NAMES}


def joined(places: Mapping[str, np.ndarray], **more: object) -> Aggregation:
    """Row i of an image is row i of the others, for twenty rows that differ from pair to pair."""
    rows = {("a", "b"): np.arange(0, 20), ("b", "c"): np.arange(5, 25), ("a", "c"): np.arange(10, 30)}

    def read(pair: Pair) -> Correspondences:
        at = rows[min(pair), max(pair)]
        points = (places[name][at] for name in pair)
        return Correspondences(*points, np.linspace(0.5, 1, len(at), dtype=np.float32))

    listener = Listener()
    found = by_points([("b", "a"), ("c", "b"), ("a", "c")], read, listener, **more)
    assert listener.left == 0
    return found


def test_a_place_is_one_keypoint_in_all_pairs_of_its_image(places: dict[str, np.ndarray]) -> None:
    found = joined(places)
    assert {name: len(points) for name, points in found.keypoints.items()} == {"a": 30, "b": 25, "c": 25}
    for (name0, name1), matches in found.matches():
        assert len(matches) == 20
        for name, column in ((name0, 0), (name1, 1)):
            xy = found.keypoints[name].xy[matches.indices[:, column]]
            rows = [int(np.flatnonzero((places[name] == place).all(1))[0]) for place in xy]
            assert len(set(rows)) == 20
    assert found.summary.num_tracks == 30
    assert found.summary.mean_track_length == pytest.approx(80 / 30)
    scores = found.keypoints["a"].scores
    assert sorted(scores.tolist()) == [1.0] * 20 + [2.0] * 10


def test_matches_lead_from_a_place_to_its_partner(places: dict[str, np.ndarray]) -> None:
    found = joined(places)
    matches = found.matches_of(("b", "a"))
    for b, a in matches.indices:
        row = np.flatnonzero((places["b"] == found.keypoints["b"].xy[b]).all(1))[0]
        np.testing.assert_array_equal(found.keypoints["a"].xy[a], places["a"][row])


def test_zero_and_minus_zero_are_one_place() -> None:
    pairs = {("a", "b"): 0.0, ("a", "c"): -0.0}

    def read(pair: Pair) -> Correspondences:
        xy = np.array([[pairs[pair], 5]], np.float32)
        return Correspondences(xy, xy, np.ones(1, np.float32))

    found = by_points(list(pairs), read, Listener())
    assert len(found.keypoints["a"]) == 1


def test_of_two_matches_of_a_keypoint_the_better_stays() -> None:
    def read(pair: Pair) -> Correspondences:
        here, there = np.array([[1, 1], [1, 1]], np.float32), np.array([[2, 2], [3, 3]], np.float32)
        return Correspondences(here, there, np.array([0.4, 0.9], np.float32))

    matches = by_points([("a", "b")], read, Listener()).matches_of(("a", "b"))
    assert matches.indices.tolist() == [[0, 1]]
    assert matches.scores.tolist() == pytest.approx([0.9])


def test_masked_places_are_left_out(places: dict[str, np.ndarray]) -> None:
    found = joined(places, allows=lambda name, xy: xy[:, 0] > 150 if name == "a" else np.ones(len(xy), bool))
    assert (found.keypoints["a"].xy[:, 0] > 150).all()
    assert len(found.matches_of(("a", "b"))) == np.count_nonzero(places["a"][:20, 0] > 150)


def test_given_keypoints_stay_as_they_are_and_take_the_points_next_to_them(places: dict[str, np.ndarray]) -> None:
    anchors = {name: Keypoints(xy[::-1] + np.float32(0.2), np.ones(40, np.float32)) for name, xy in places.items()}
    found = joined(places, anchors=anchors, reach=dict.fromkeys(NAMES, 0.5))
    assert found.keypoints == anchors
    matches = found.matches_of(("a", "b"))
    assert sorted(matches.indices[:, 0].tolist()) == list(range(20, 40))
    np.testing.assert_array_equal(matches.indices[:, 0], matches.indices[:, 1])
