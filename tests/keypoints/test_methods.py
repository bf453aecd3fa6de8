"""The other methods from warps to keypoints, tested on the same planes as tracks."""

from __future__ import annotations

import numpy as np
import pytest
from support.planar_views import PlanarViews, match_errors, views_along_plane

from romacli.errors import UsageError
from romacli.forest import Forest
from romacli.keypoints.aggregate import METHODS, Aggregation, aggregate
from romacli.keypoints.components import join_tracks
from romacli.keypoints.options import AggregateOptions
from romacli.keypoints.spacing import nearest
from romacli.types import Keypoints


@pytest.fixture(scope="module")
def views() -> PlanarViews:
    return views_along_plane(4).with_errors(noise_px=0.3)


@pytest.fixture(scope="module", params=["cells"])
def result(request: pytest.FixtureRequest, views: PlanarViews) -> Aggregation:
    return aggregate(views.pairs, views.read, AggregateOptions(method=request.param, max_keypoints=1000))


def test_matches_are_one_to_one_and_keypoints_no_more_than_allowed(result: Aggregation) -> None:
    assert max(len(points) for points in result.keypoints.values()) <= 1000
    for (name0, name1), matches in result.matches():
        assert len(matches) > 5
        for name, rows in ((name0, matches.indices[:, 0]), (name1, matches.indices[:, 1])):
            assert len(np.unique(rows)) == len(rows)
            assert rows.max() < len(result.keypoints[name])


def test_other_order_and_turned_names_change_nothing(result: Aggregation, views: PlanarViews) -> None:
    turned = [pair[::-1] for pair in reversed(views.pairs)]
    again = aggregate(turned, views.read, AggregateOptions(method="cells", max_keypoints=1000))
    assert again.summary == result.summary
    for name, points in result.keypoints.items():
        np.testing.assert_array_equal(points.xy, again.keypoints[name].xy)


def test_cells_place_keypoints_on_bins_of_two_px_a_cell_apart(views: PlanarViews) -> None:
    result = aggregate(views.pairs, views.read, AggregateOptions(method="cells"))
    bins = result.keypoints["view1.jpg"].xy  # 800 px wide: a bin of 2 px at 1600 is 1 px here
    np.testing.assert_array_equal(bins, np.rint(bins))
    assert len(np.unique(np.rint(bins / 4), axis=0)) > 0.7 * len(bins)
    assert np.median(match_errors(views, result)) < 1.5
    assert result.summary.longest_track > 2


def test_a_cell_puts_its_keypoint_where_most_votes_fall() -> None:
    exact = views_along_plane(2, step=0.0)
    flat = PlanarViews(dict.fromkeys(exact.sizes, np.eye(3)), exact.sizes)
    result = aggregate(flat.pairs, flat.read, AggregateOptions(method="cells"))
    votes = result.keypoints["view0.jpg"].scores
    assert (np.diff(votes) <= 0).all()
    assert votes.sum() <= 2 * 48**2  # at most one vote per usable cell and direction


def grid_anchors(views: PlanarViews, *, moved_px: float = 0.0) -> dict[str, Keypoints]:
    """The same 140 points of the plane seen in every view, each moved by `moved_px` in a random direction."""
    x, y = np.meshgrid(np.arange(300, 760, 33.0), np.arange(120, 500, 40.0))
    points = np.stack((x, y), axis=-1).reshape(-1, 2)
    anchors = {}
    for name in views.sizes:
        angle = np.random.default_rng([*name.encode()]).uniform(0, 2 * np.pi, len(points))
        xy = views.truth("view0.jpg", name, points)[0] + moved_px * np.stack((np.cos(angle), np.sin(angle)), 1)
        anchors[name] = Keypoints(xy.astype(np.float32), np.ones(len(xy), np.float32))
    return anchors


def test_given_keypoints_are_kept_and_matched_to_themselves() -> None:
    views = views_along_plane(3)
    anchors = grid_anchors(views)
    result = aggregate(views.pairs, views.read, anchors=anchors)
    for name, points in result.keypoints.items():
        assert points is anchors[name]
    for (name0, name1), matches in result.matches():
        assert len(matches) > 100, (name0, name1)
        np.testing.assert_array_equal(matches.indices[:, 0], matches.indices[:, 1])
    assert result.summary.longest_track == 3


@pytest.mark.parametrize(("max_distance", "matched"), [(6.0, True), (1.5, False)])
def test_the_radius_decides_how_far_a_given_keypoint_may_lie(max_distance: float, matched: bool) -> None:
    views = views_along_plane(2)  # 800 px wide: distances given at 1600 halve
    anchors = grid_anchors(views, moved_px=1.0)
    result = aggregate(views.pairs, views.read, AggregateOptions(max_distance=max_distance), anchors=anchors)
    share = len(result.matches_of(("view0.jpg", "view1.jpg"))) / len(anchors["view0.jpg"])
    assert share > 0.9 if matched else share < 0.4


def test_given_keypoints_match_only_when_each_is_the_others_nearest() -> None:
    views = views_along_plane(2)
    twice = grid_anchors(views)["view0.jpg"].xy
    beside = twice + np.float32(0.4)
    there = views.truth("view0.jpg", "view1.jpg", twice.astype(float))[0].astype(np.float32)
    anchors = {
        "view0.jpg": Keypoints(np.concatenate((beside, twice)), np.ones(2 * len(twice), np.float32)),
        "view1.jpg": Keypoints(there, np.ones(len(there), np.float32)),
    }
    indices = aggregate(views.pairs, views.read, anchors=anchors).matches_of(("view0.jpg", "view1.jpg")).indices
    np.testing.assert_array_equal(indices[:, 0], indices[:, 1] + len(twice))


def test_images_without_given_keypoints_have_no_matches() -> None:
    views = views_along_plane(3)
    anchors = grid_anchors(views)
    anchors["view1.jpg"] = Keypoints(np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    result = aggregate(views.pairs, views.read, anchors=anchors)
    without = [pair for pair, count in result.num_matches.items() if not count]
    assert without == [("view0.jpg", "view1.jpg"), ("view1.jpg", "view2.jpg")]


def test_unknown_methods_are_refused_with_those_there_are(views: PlanarViews) -> None:
    with pytest.raises(UsageError, match="--method votes is unknown. Known: tracks, cells"):
        aggregate(views.pairs, views.read, AggregateOptions(method="votes"))
    assert list(METHODS) == ["tracks", "cells"]


def test_nearest_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    queries, points = rng.uniform(0, 50, (200, 2)), rng.uniform(0, 50, (300, 2))
    distances = np.linalg.norm(queries[:, None] - points, axis=2)
    expected = np.where(distances.min(axis=1) <= 2, distances.argmin(axis=1), -1)
    np.testing.assert_array_equal(nearest(queries, points, 2.0), expected)
    assert (expected == -1).any()


def test_joined_nodes_have_the_components_of_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    edges = rng.integers(0, 400, (350, 2))
    forest = Forest(400)
    for part in np.array_split(edges, 7):
        forest.join(part[:, 0], part[:, 1])
    labels = list(range(400))
    for one, other in edges:
        low, high = sorted((labels[one], labels[other]))
        labels = [low if label == high else label for label in labels]
    assert forest.roots().tolist() == labels


def test_a_chain_of_matches_is_one_track() -> None:
    matches = [(("a", "b"), np.array([[0, 1]])), (("b", "c"), np.array([[1, 0], [2, 1]]))]
    tracks = join_tracks({"a": 2, "b": 3, "c": 2}, matches)
    assert tracks["a"][0] == tracks["b"][1] == tracks["c"][0] != tracks["b"][2] == tracks["c"][1]
    assert tracks["a"][1] == tracks["b"][0] == -1
