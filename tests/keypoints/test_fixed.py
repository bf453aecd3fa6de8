"""Keypoints of some images stay while others are added: no row moves, and the new ones are as good as without them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from support.planar_views import PlanarViews, match_errors, views_along_plane

from romacli.keypoints.aggregate import METHODS, Aggregation, aggregate
from romacli.keypoints.options import AggregateOptions
from romacli.types import Keypoints, Matches, Pair

NEW = ("view3.jpg", "view4.jpg")
FEW = 25.0


@pytest.fixture(scope="module")
def views() -> PlanarViews:
    return views_along_plane(5).with_errors(noise_px=0.3)


def grown(views: PlanarViews, before: Aggregation, method: str = "tracks", **more: object) -> Aggregation:
    matches = {pair: found for pair, found in before.matches()}
    options = AggregateOptions(method=method, spacing=FEW)
    return aggregate(views.pairs, views.read, options, anchors=before.keypoints, kept=matches, **more)


@pytest.fixture(scope="module")
def both(views: PlanarViews) -> tuple[Aggregation, Aggregation]:
    """A job of three views, and the same extended to five."""
    return before_and_after(views, "tracks")


def before_and_after(views: PlanarViews, method: str) -> tuple[Aggregation, Aggregation]:
    old = [pair for pair in views.pairs if not set(pair) & set(NEW)]
    before = aggregate(old, views.read, AggregateOptions(method=method, spacing=FEW))
    return before, grown(views, before, method)


@pytest.mark.parametrize("method", METHODS)
def test_rows_and_matches_of_old_images_stay(
    method: str, views: PlanarViews, both: tuple[Aggregation, Aggregation]
) -> None:
    before, after = both if method == "tracks" else before_and_after(views, method)
    for name, known in before.keypoints.items():
        assert after.keypoints[name] is known
    for pair, found in before.matches():
        np.testing.assert_array_equal(after.matches_of(pair).indices, found.indices)
    assert len(after.matches_of(("view2.jpg", "view3.jpg"))) > 50


def test_new_images_match_old_ones_and_each_other_as_without(
    views: PlanarViews, both: tuple[Aggregation, Aggregation]
) -> None:
    before, after = both
    anew = aggregate(views.pairs, views.read, AggregateOptions(spacing=FEW))
    for pair in views.pairs:
        if set(pair) & set(NEW):  # old images have keypoints only where other old images see them
            assert len(after.matches_of(pair)) > 0.6 * len(anew.matches_of(pair)), pair
    assert np.median(match_errors(views, after)) < 1.2 * np.median(match_errors(views, anew)) + 0.05
    assert after.summary.num_tracks > before.summary.num_tracks


def test_tracks_of_old_images_go_on_into_new_ones(both: tuple[Aggregation, Aggregation]) -> None:
    _, after = both
    seen = [set(after.matches_of(pair).indices[:, 0]) for pair in (("view2.jpg", name) for name in NEW)]
    assert len(seen[0] & seen[1]) > 0.5 * len(seen[1]) > 100


def test_the_order_of_pairs_changes_nothing(views: PlanarViews, both: tuple[Aggregation, Aggregation]) -> None:
    before, after = both
    turned = [pair[::-1] for pair in reversed(views.pairs)]
    kept = {pair: found for pair, found in before.matches()}
    again = aggregate(turned, views.read, AggregateOptions(spacing=FEW), anchors=before.keypoints, kept=kept)
    assert again.summary == after.summary
    for name in NEW:
        np.testing.assert_array_equal(again.keypoints[name].xy, after.keypoints[name].xy)


def test_keypoints_that_no_matches_are_known_of_are_matched_through_the_warps(views: PlanarViews) -> None:
    rng = np.random.default_rng(0)
    known: Mapping[str, Keypoints] = {
        name: Keypoints(rng.uniform(0, views.sizes[name], (800, 2)).astype(np.float32), np.ones(800, np.float32))
        for name in ("view0.jpg", "view1.jpg")
    }
    found = aggregate(views.pairs, views.read, AggregateOptions(spacing=FEW), anchors=known)
    none: Mapping[Pair, Matches] = {}
    alone = aggregate([("view0.jpg", "view1.jpg")], views.read, anchors=known, kept=none)
    expected = alone.matches_of(("view0.jpg", "view1.jpg")).indices
    np.testing.assert_array_equal(found.matches_of(("view0.jpg", "view1.jpg")).indices, expected)
    assert len(found.keypoints["view3.jpg"]) > 400
    shared = found.matches_of(("view1.jpg", "view3.jpg"))
    assert len(shared) > 200
    assert np.median(match_errors(views, found)) < 1.0
