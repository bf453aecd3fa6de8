from dataclasses import replace

import numpy as np
import pytest
from support.planar_views import PlanarViews, match_errors, views_along_plane

from romacli.geometry.warp import WarpField, cell_centres
from romacli.keypoints.aggregate import aggregate
from romacli.keypoints.graph import PairGraph
from romacli.keypoints.tracks import AggregateOptions, TrackTable, _turn_round, grow

OPTIONS = AggregateOptions(spacing=28.0, max_keypoints=2500)
SIZE = (640, 480)
TURNED = np.array([[0.8, 0.5], [-0.3, 1.1]])


def graph_of(views: PlanarViews) -> PairGraph:
    return PairGraph(views.pairs, views.read, lambda: None)


def read_affine(points: np.ndarray, resolution: float = 1.0):
    targets = cell_centres((20, 20), SIZE) @ TURNED.T * resolution
    size = (int(640 * resolution), int(480 * resolution))
    field = WarpField(targets, np.full((20, 20), 0.5), source_size=SIZE, target_size=size)
    return field.at(points, with_jacobian=True)


def test_a_warp_turned_round_leads_to_where_its_inverse_does():
    rng = np.random.default_rng(0)
    start = rng.uniform(50, 400, (30, 2)).astype(np.float32)
    arrival = (start + rng.uniform(-3, 3, (30, 2))) @ TURNED.T
    turned, weights = _turn_round(read_affine(start), start, arrival, 1.0)
    np.testing.assert_allclose(turned, arrival @ np.linalg.inv(TURNED).T, atol=1e-2)
    np.testing.assert_allclose(weights, 0.5 * np.linalg.det(TURNED), rtol=1e-3)


def test_weight_of_a_warp_turned_round_does_not_depend_on_resolution():
    start = np.array([[100.0, 100.0]], np.float32)
    plain = _turn_round(read_affine(start), start, start, 1.0)[1]
    fine = _turn_round(read_affine(start, 3.0), start, start, 1 / 3)[1]
    np.testing.assert_allclose(plain, fine, rtol=1e-3)


def test_table_counts_in_how_many_images_a_track_is_seen():
    table = TrackTable(3)
    table.start(0, np.zeros((3, 2), np.float32))
    table.start(1, np.zeros((1, 2), np.float32))
    table.replace(1, np.array([0, 2, 3]), np.ones((3, 2), np.float32))
    table.replace(2, np.array([2]), np.ones((1, 2), np.float32))
    assert table.lengths.tolist() == [2, 1, 3, 1]
    rows_0, rows_1 = table.common(0, 1)
    assert (rows_0.tolist(), rows_1.tolist()) == ([0, 2], [0, 1])
    table.drop_single()
    assert [ids.tolist() for ids in table.ids] == [[0, 1], [0, 1], [1]]  # the remaining ones are renumbered
    assert table.lengths.tolist() == [2, 3]
    table.start(1, np.full((2, 2), 7, np.float32))
    assert table.lengths.tolist() == [2, 3, 1, 1]
    assert table.ids[1].tolist() == [0, 1, 2, 3]
    assert table.xy[1].tolist() == [[1, 1], [1, 1], [7, 7], [7, 7]]


def test_growing_leaves_no_lone_observations():
    views = views_along_plane(4).with_errors(noise_px=0.5, outliers=0.1)
    graph = graph_of(views)
    table = TrackTable(len(graph.names))
    grow(table, graph, OPTIONS, lambda: None)
    seen = np.bincount(np.concatenate(table.ids), minlength=len(table.lengths))
    np.testing.assert_array_equal(seen, table.lengths)
    assert set(np.unique(table.lengths)) == {2, 3, 4}


def test_images_are_visited_best_connected_first():
    views = views_along_plane(5, step=150.0)
    graph = graph_of(views)
    order = graph.visiting_order()
    assert order[0] in (1, 2, 3)
    assert all(min(abs(k - other) for other in order[:n]) == 1 for n, k in enumerate(order) if n)


def test_a_match_needs_the_warp_of_its_own_pair():
    """Two images whose warp disagrees get no match from a track that reaches both through a third."""
    views = views_along_plane(3)
    names = ("view0.jpg", "view2.jpg")

    def read(pair):
        record = views.read(pair)
        if pair != names:
            return record
        return replace(record, target_AB=record.target_AB + 1000, target_BA=record.target_BA + 1000)

    result = aggregate(views.pairs, read, OPTIONS)
    rows0, rows2 = result.matches_of(names).indices.T
    truth, _ = views.truth(*names, result.keypoints[names[0]].xy[rows0].astype(float))
    assert np.linalg.norm(truth - result.keypoints[names[1]].xy[rows2], axis=1).min(initial=np.inf) > 10
    assert len(result.matches_of(("view0.jpg", "view1.jpg"))) > 200


@pytest.mark.parametrize("max_keypoints", [400, 4000])
def test_half_empty_images_get_denser_seeds(max_keypoints):
    views = views_along_plane(3)
    options = replace(OPTIONS, max_keypoints=max_keypoints, spacing=56.0)
    result = aggregate(views.pairs, views.read, options)
    seeds = (1600 / 56) * (1200 / 56)
    is_dense = all(len(points) > 1.5 * seeds for points in result.keypoints.values())
    assert is_dense == (max_keypoints == 4000)


@pytest.mark.parametrize("size", [(64, 48), (160, 120)])
@pytest.mark.parametrize("method", ["tracks", "cells"])
def test_tiny_images_get_no_more_keypoints_than_their_pixels_tell_apart(method, size):
    views = views_along_plane(4, size=size, step=size[0] / 10).with_errors(noise_px=0.2)
    result = aggregate(views.pairs, views.read, AggregateOptions(method=method))
    for points in result.keypoints.values():
        assert 50 < len(points) < size[0] * size[1] / 3
        distances = np.linalg.norm(points.xy[:, None] - points.xy, axis=2) + 1e9 * np.eye(len(points))
        assert method == "cells" or distances.min() > 1
    assert np.median(match_errors(views, result)) < (1 if method == "cells" else 0.5)
