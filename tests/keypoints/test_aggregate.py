from dataclasses import replace

import numpy as np
import pytest
from support.planar_views import NODES, PlanarViews, match_errors, views_along_plane

from romacli.errors import StoreError
from romacli.keypoints.aggregate import Aggregation, aggregate
from romacli.keypoints.options import AggregateOptions
from romacli.keypoints.spacing import close_pairs
from romacli.types import CompactWarp

# Half the seeds in each direction and room for no more: a quarter of the default's work.
OPTIONS = AggregateOptions(spacing=28.0, max_keypoints=2500)


def components(result: Aggregation) -> dict[tuple[str, int], set[tuple[str, int]]]:
    """The connected component of every keypoint under the written matches."""
    component = {(name, k): {(name, k)} for name, points in result.keypoints.items() for k in range(len(points))}
    for (name0, name1), matches in result.matches():
        for row0, row1 in matches.indices:
            one, other = component[name0, row0], component[name1, row1]
            if one is not other:
                one |= other
                component.update(dict.fromkeys(other, one))
    return component


@pytest.fixture(scope="module")
def exact():
    views = views_along_plane(6)
    return views, aggregate(views.pairs, views.read, OPTIONS)


@pytest.fixture(scope="module")
def noisy():
    views = views_along_plane(6).with_errors(noise_px=0.5, outliers=0.1)
    return views, aggregate(views.pairs, views.read, OPTIONS)


def test_exact_warps_give_exact_matches(exact):
    errors = match_errors(*exact)
    assert np.median(errors) < 0.03
    assert np.quantile(errors, 0.99) < 0.1


def test_exact_warps_give_tracks_as_long_as_points_are_visible(exact):
    views, result = exact
    for name, points in result.keypoints.items():
        seen = [views.truth(name, other, points.xy.astype(float))[1] for other in views.sizes]
        assert points.scores.mean() > 0.9 * np.sum(seen, axis=0).mean()
        assert len(points) > 300


def test_a_track_has_one_keypoint_in_an_image_and_its_length_is_the_score(noisy):
    _, result = noisy
    parts = {id(part): part for part in components(result).values()}
    assert len(parts) >= result.summary.num_tracks
    for part in parts.values():
        assert len({name for name, _ in part}) == len(part) >= 2
        assert len(part) <= min(result.keypoints[name].scores[row] for name, row in part)


def test_matches_are_one_to_one_and_every_keypoint_has_one(noisy):
    _, result = noisy
    used = {name: np.zeros(len(points), bool) for name, points in result.keypoints.items()}
    for (name0, name1), matches in result.matches():
        for name, rows in ((name0, matches.indices[:, 0]), (name1, matches.indices[:, 1])):
            assert len(np.unique(rows)) == len(rows)
            used[name][rows] = True
        assert ((matches.scores > 0) & (matches.scores <= 1)).all()
    assert all(rows.all() for rows in used.values())


def test_keypoints_keep_their_distance_and_stay_inside(noisy):
    views, result = noisy
    for name, points in result.keypoints.items():
        # Refinement may bring two a little closer than the suppression radius of 3.5 px at 1600.
        rows, others = close_pairs(points.xy, points.xy, 0.5 * 3.5 * 800 / 1600)
        np.testing.assert_array_equal(rows, others)
        assert ((points.xy >= 0) & (points.xy <= views.sizes[name])).all()


def test_wrong_blobs_leave_few_wrong_matches(noisy):
    errors = match_errors(*noisy)
    assert (errors > 5).mean() < 0.02
    assert np.median(errors) < 0.5


def test_errors_fall_with_refinement_and_do_not_rise_again():
    views = views_along_plane(6, seed=3).with_errors(noise_px=0.5, outliers=0.05)
    rounds = [
        np.median(match_errors(views, aggregate(views.pairs, views.read, replace(OPTIONS, refinements=n))))
        for n in (0, 1, 3, 6)
    ]
    assert rounds[1] < rounds[0]
    assert rounds[2] < rounds[1]
    assert rounds[3] < rounds[2] * 1.01


def test_order_of_pairs_and_of_their_names_changes_nothing(noisy):
    views, result = noisy
    rng = np.random.default_rng(0)
    shuffled = [pair[::-1] if rng.random() < 0.5 else pair for pair in rng.permutation(views.pairs).tolist()]
    again = aggregate([(a, b) for a, b in shuffled], views.read, OPTIONS)
    assert again.summary == result.summary
    for name, points in result.keypoints.items():
        np.testing.assert_array_equal(points.xy, again.keypoints[name].xy)
    for (pair, matches), (other_pair, other) in zip(result.matches(), again.matches(), strict=True):
        assert pair == other_pair
        np.testing.assert_array_equal(matches.indices, other.indices)


def test_matches_of_turned_names_are_turned(noisy):
    _, result = noisy
    one, other = (result.matches_of(pair).indices for pair in (("view0.jpg", "view2.jpg"), ("view2.jpg", "view0.jpg")))
    np.testing.assert_array_equal(one, other[:, ::-1])
    assert len(one) > 100


def test_images_of_different_resolution_share_tracks():
    views = views_along_plane(4)
    fine = replace(
        views,
        plane_from_image={
            name: matrix @ np.diag([1 / 3, 1 / 3, 1]) if name == "view1.jpg" else matrix
            for name, matrix in views.plane_from_image.items()
        },
        sizes=views.sizes | {"view1.jpg": (2400, 1800)},
    )
    plain, mixed = (aggregate(v.pairs, v.read, OPTIONS) for v in (views, fine))
    assert mixed.summary.mean_track_length == pytest.approx(plain.summary.mean_track_length, rel=0.03)
    assert np.median(match_errors(fine, mixed)) < 0.09
    assert len(mixed.keypoints["view1.jpg"]) == pytest.approx(len(plain.keypoints["view1.jpg"]), rel=0.1)


def test_two_names_of_one_photograph_share_all_keypoints():
    views = views_along_plane(3)
    matrices = views.plane_from_image | {"copy.jpg": views.plane_from_image["view1.jpg"]}
    views = PlanarViews(matrices, dict.fromkeys(matrices, (800, 600)))
    result = aggregate(views.pairs, views.read, OPTIONS)
    matches = result.matches_of(("copy.jpg", "view1.jpg")).indices
    assert len(matches) > 0.95 * len(result.keypoints["copy.jpg"])
    points = [result.keypoints[name].xy[matches[:, k]] for k, name in enumerate(("copy.jpg", "view1.jpg"))]
    np.testing.assert_allclose(*points, atol=0.05)


def test_short_tracks_can_be_left_out(exact):
    views, result = exact
    long = aggregate(views.pairs, views.read, replace(OPTIONS, min_track_length=4))
    assert min(points.scores.min() for points in long.keypoints.values()) >= 4
    assert long.summary.num_tracks < result.summary.num_tracks


def test_images_hold_no_more_than_the_allowed_keypoints(exact):
    views, _ = exact
    result = aggregate(views.pairs, views.read, replace(OPTIONS, max_keypoints=200))
    counts = [len(points) for points in result.keypoints.values()]
    assert max(counts) <= 200
    assert min(counts) > 120


def test_an_image_without_usable_warps_is_reported_with_its_pairs():
    views = views_along_plane(3)

    def read(pair):
        record = views.read(pair)
        if "view2.jpg" not in pair:
            return record
        nothing = np.zeros((NODES, NODES), np.uint8)
        return replace(record, weight_AB=nothing, weight_BA=nothing, overlap=0.0)

    result = aggregate(views.pairs, read, OPTIONS)
    without = [pair for pair, count in result.num_matches.items() if not count]
    assert without == [("view0.jpg", "view2.jpg"), ("view1.jpg", "view2.jpg")]
    assert len(result.keypoints["view2.jpg"]) == 0
    assert len(result.matches_of(("view0.jpg", "view2.jpg"))) == 0
    assert len(result.matches_of(("view0.jpg", "view1.jpg"))) > 100


def test_no_pairs_give_no_keypoints():
    def read(pair) -> CompactWarp:
        raise AssertionError("nothing is to be read")

    result = aggregate([], read)
    assert result.keypoints == {}
    assert list(result.matches()) == []
    assert result.summary.mean_track_length == 0


def test_pairs_that_were_not_aggregated_are_unknown(exact):
    with pytest.raises(KeyError):
        exact[1].matches_of(("view0.jpg", "elsewhere.jpg"))


def test_a_photograph_of_two_sizes_is_refused():
    views = views_along_plane(3)

    def read(pair):
        record = views.read(pair)
        return replace(record, size_B=(640, 480)) if pair == ("view0.jpg", "view2.jpg") else record

    with pytest.raises(StoreError, match="view2.jpg has 640 x 480 px in one stored pair and 800 x 600 px"):
        aggregate(views.pairs, read, OPTIONS)


def test_a_pair_given_twice_is_refused():
    with pytest.raises(ValueError, match="occurs twice"):
        aggregate([("a", "b"), ("b", "a")], views_along_plane(2).read)


def test_progress_reaches_the_total_of_every_piece_of_work(exact):
    class Listener:
        def __init__(self):
            self.done, self.totals = [], []

        def begin(self, title, total):
            self.totals.append(total)
            self.done.append(0)

        def advance(self, count=1):
            self.done[-1] += count

    views, listener = exact[0], Listener()
    aggregate(views.pairs[:3], views.read, OPTIONS, progress=listener)
    assert listener.done == listener.totals
    assert len(listener.totals) == 3
