"""Tracks against the truth of scenes with depth edges, occlusion and correlated errors."""

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.track_scenes import EXACT, Capture, Layout, make_capture

from romacli.keypoints.aggregate import Aggregation, aggregate
from romacli.keypoints.options import AggregateOptions
from romacli.matchers.compact import compact
from romacli.types import CompactWarp, Pair

LAYOUT = Layout(num_views=5, arc_deg=47, reach=4)
SIZE = (1600, 1200)
# A quarter of the default's tracks; half as many nodes as a network outputs leave the errors unchanged.
OPTIONS = AggregateOptions(spacing=28.0, max_keypoints=2500)
NODES = 140


def records_of(capture: Capture) -> dict[Pair, CompactWarp]:
    names = [view.name for view in capture.views]
    return {(names[i], names[j]): compact(capture.dense(i, j)) for i, j in capture.pairs}


def match_errors(capture: Capture, result: Aggregation) -> np.ndarray:
    """The true error of every match in px; infinite where the second view does not see the point."""
    number = {view.name: k for k, view in enumerate(capture.views)}
    errors = []
    for (name0, name1), matches in result.matches():
        points0 = result.keypoints[name0].xy[matches.indices[:, 0]].astype(np.float64)
        points1 = result.keypoints[name1].xy[matches.indices[:, 1]]
        truth, visible = capture.follow(number[name0], number[name1], points0)
        errors.append(np.where(visible, np.linalg.norm(truth - points1, axis=1), np.inf))
    return np.concatenate(errors)


@pytest.fixture(scope="module")
def exact():
    capture = make_capture(LAYOUT, 40, noise=EXACT, nodes=NODES, size=SIZE)
    records = records_of(capture)
    return capture, aggregate(list(records), records.__getitem__, OPTIONS)


@pytest.fixture(scope="module")
def noisy():
    capture = make_capture(LAYOUT, 41, nodes=NODES, size=SIZE)
    return capture, records_of(capture)


def test_exact_warps_lead_to_within_a_tenth_of_a_pixel(exact):
    errors = match_errors(*exact)
    assert np.median(errors) < 0.05
    assert np.quantile(errors, 0.8) < 0.1
    assert (errors > 5).mean() < 0.005


def test_exact_warps_give_tracks_nearly_as_long_as_points_are_in_view(exact):
    capture, result = exact
    found, seen = [], []
    for k, view in enumerate(capture.views):
        points = result.keypoints[view.name]
        follow = [capture.follow(k, other, points.xy.astype(np.float64))[1] for other in range(len(capture.views))]
        found.append(points.scores.mean())
        seen.append(np.sum(follow, axis=0).mean())
    assert np.mean(found) > 0.95 * np.mean(seen)


def test_errors_do_not_rise_with_more_rounds_of_refinement(noisy):
    capture, records = noisy
    medians = []
    for refinements in (0, 1, 3, 6):
        options = replace(OPTIONS, refinements=refinements)
        medians.append(np.median(match_errors(capture, aggregate(list(records), records.__getitem__, options))))
    assert medians[1] < medians[0]
    assert medians[2] < medians[1] * 1.01
    assert medians[3] < medians[2] * 1.01


def test_no_chain_of_matches_joins_two_keypoints_of_an_image(noisy):
    _, records = noisy
    result = aggregate(list(records), records.__getitem__, OPTIONS)
    first = dict(zip(result.keypoints, np.cumsum([0, *map(len, result.keypoints.values())]), strict=False))
    image = np.repeat(np.arange(len(result.keypoints)), [len(points) for points in result.keypoints.values()])
    label = np.arange(len(image))
    links = np.concatenate([m.indices + [first[a], first[b]] for (a, b), m in result.matches()])
    for _ in range(len(result.keypoints)):
        np.minimum.at(label, links[:, 0], label[links[:, 1]])
        np.minimum.at(label, links[:, 1], label[links[:, 0]])
    assert (label[links[:, 0]] == label[links[:, 1]]).all()
    assert len(np.unique(label * len(result.keypoints) + image)) == len(image)
    assert len(links) > 3000
