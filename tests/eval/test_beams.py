"""Points against the beams of laser scanners, evaluated as by ETH3D."""

from __future__ import annotations

import math

import numpy as np
import pytest

from romacli.eval.benchmarks.scenes.beams import BEAM_RADIUS, BEAM_SPREAD, accuracy, completeness, per_voxel

TOLERANCES = (0.01, 0.02, 0.05)
HERE = np.eye(4)
WALL = np.array([[2.0, 0, 0]])  # one beam, which ended 2 m away
UNKNOWN = (0.0, 0.0, 0.0)  # not counted


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((2.005, 0, 0), (1, 1, 1)),
        ((1, 0, 0), UNKNOWN),  # in space that the beam crossed: counts, and is wrong
        ((1.97, 0, 0), (0, 0, 1)),
        ((2.03, 0, 0), (0, 0, 1)),
        ((2, 0.0015, 0), (1, 1, 1)),  # the beam's radius is 1.125 mm plus 0.192 mm per metre
        ((2, 0.0016, 0), UNKNOWN),
        ((-1, 0, 0), UNKNOWN),
    ],
)
def test_a_point_is_near_where_a_beam_that_holds_it_ended(point, expected) -> None:
    assert accuracy(np.array([point]), [(WALL, HERE)], TOLERANCES) == list(expected)


def test_points_behind_a_wall_and_beside_all_beams_do_not_count_and_those_before_it_do() -> None:
    right = (2.005, 0, 0)
    points = np.array([right, (3, 0, 0), (0, 0, 2), (1, 0.0014, 0)])
    assert accuracy(points, [(WALL, HERE)], TOLERANCES) == [1, 1, 1]
    # 3 cm behind the wall, nothing is known at 1 and 2 cm; 3 cm in front of it is wrong at these.
    points = np.array([right, (1, 0, 0), (1.97, 0, 0), (2.03, 0, 0)])
    assert accuracy(points, [(WALL, HERE)], TOLERANCES) == pytest.approx([1 / 3, 1 / 3, 3 / 4])


def test_one_scan_that_knows_is_enough_and_one_that_says_near_wins() -> None:
    points = np.array([(2.005, 0, 0), (3, 0, 0)])  # the second is hidden from the first scanner
    across = np.array([[0, 1.0, 0, 3], [-1, 0, 0, -1], [0, 0, 1, 0], [0, 0, 0, 1]])  # the scanner is at (3, -1, 0)
    beam = np.array([[-4.0, 0, 0]])  # towards (3, 3, 0)
    assert accuracy(points, [(WALL, HERE), (beam, across)], TOLERANCES) == [0.5] * 3
    ends_there = np.array([[-1.0, 0, 0], [-4, 0, 0]])
    assert accuracy(points, [(WALL, HERE), (ends_there, across)], TOLERANCES) == [1] * 3


def test_directions_are_searched_as_by_looking_at_all_beams() -> None:
    rng = np.random.default_rng(0)
    scan = rng.normal(size=(5_000, 3)) * (0.6, 0.6, 1)
    points = np.concatenate((scan[:300] * rng.normal(1, 0.02, (300, 1)), rng.normal(size=(100, 3)) * 0.01))
    points[:20, :2] *= 1e-3  # near the poles
    points[20:40, 1] = 1e-6 * rng.normal(size=20)  # on both sides of azimuth 0
    directions, ranges = scan / np.linalg.norm(scan, axis=1)[:, None], np.linalg.norm(scan, axis=1)
    right, counted = [], []
    for point in points:
        along = directions @ point
        off = np.linalg.norm(point - along[:, None] * directions, axis=1)
        inside = (along >= 0) & (off <= BEAM_RADIUS + BEAM_SPREAD * np.linalg.norm(point))
        near = np.linalg.norm(scan[inside] - point, axis=1).min(initial=math.inf) <= 0.02
        right.append(near)
        counted.append(near or (along[inside] < ranges[inside]).any())
    assert 50 < sum(right) < sum(counted) < len(points)
    (expected,) = per_voxel(points, np.array(right)[:, None], np.array(counted)[:, None])
    assert accuracy(points, [(scan, HERE)], [0.02]) == [pytest.approx(expected, abs=1e-12)]


def test_voxels_of_two_grids_weigh_alike() -> None:
    points = np.array([[0.001, 0, 0], [0.004, 0, 0], [0.006, 0, 0]])
    right = np.array([True, True, False])[:, None]
    # One voxel of the first grid, where 2 of 3 are right; two of the other, where 2 of 2 are and 0 of 1.
    assert per_voxel(points, right, np.ones_like(right)) == pytest.approx([(2 / 3 + 1 + 0) / 3])
    assert per_voxel(points, right, right) == [1]
    assert per_voxel(points, right & False, right & False) == [0]


def test_completeness_asks_for_distance_alone() -> None:
    reference = np.array([[0.0, 0, 0], [1, 0, 0]])
    assert completeness(np.array([[0.015, 0, 0], [5, 0, 0]]), reference, TOLERANCES) == [0, 0.5, 0.5]
