"""Residuals and pose errors against plain loops; estimators on pairs of views with known motion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from romacli.errors import EstimationError
from romacli.geometry.epipolar import (
    essential_from_pose,
    relative_pose_error,
    rotation_angle_deg,
    sampson_error,
    symmetric_epipolar_error,
)
from romacli.geometry.estimation import estimate_essential, estimate_fundamental, pose_from_essential

FOCAL, CENTRE = 1400.0, np.array([800.0, 600.0])
ROTATION = Rotation.from_euler("xyz", [2, 12, -3], degrees=True).as_matrix()
TRANSLATION = np.array([-1.2, 0.1, 0.2])
INTRINSICS = np.array([[FOCAL, 0, CENTRE[0]], [0, FOCAL, CENTRE[1]], [0, 0, 1]])

angles = st.floats(0, 179)
seeds = st.integers(0, 10_000)


def two_views(count: int, *, outliers: float = 0.0, noise: float = 0.0, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Normalised points of both views (count, 2) of a box 6 units away, and which are true; noise in px."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (count, 3)) * [2, 1.5, 1] + [0, 0, 6]
    moved = points @ ROTATION.T + TRANSLATION
    views = [p[:, :2] / p[:, 2:] + rng.normal(0, noise / FOCAL, (count, 2)) for p in (points, moved)]
    is_false = rng.random(count) < outliers
    views[1][is_false] = rng.uniform(-0.5, 0.5, (is_false.sum(), 2))
    return *views, ~is_false


def to_px(points: np.ndarray) -> np.ndarray:
    return points * FOCAL + CENTRE


def true_fundamental() -> np.ndarray:
    inverse = np.linalg.inv(INTRINSICS)
    return inverse.T @ essential_from_pose(ROTATION, TRANSLATION) @ inverse


def test_true_points_satisfy_the_essential_matrix():
    x0, x1, _ = two_views(50)
    assert sampson_error(essential_from_pose(ROTATION, TRANSLATION), x0, x1).max() < 1e-12


def test_sampson_error_equals_a_plain_loop():
    matrix = true_fundamental()
    points0, points1 = np.random.default_rng(1).uniform(0, 1000, (2, 20, 2))
    expected = []
    for p, q in zip(points0, points1, strict=True):
        x, y = np.append(p, 1), np.append(q, 1)
        line1, line0 = matrix @ x, matrix.T @ y
        expected.append(abs(y @ matrix @ x) / np.sqrt(line1[0] ** 2 + line1[1] ** 2 + line0[0] ** 2 + line0[1] ** 2))
    np.testing.assert_allclose(sampson_error(matrix, points0, points1), expected, rtol=1e-10)


def test_sampson_error_is_the_distance_a_point_was_moved_off_its_line():
    x0, x1, _ = two_views(200)
    points0, points1 = to_px(x0), to_px(x1)
    lines = np.column_stack((points0, np.ones(200))) @ true_fundamental().T
    normals = lines[:, :2] / np.linalg.norm(lines[:, :2], axis=1, keepdims=True)
    error = sampson_error(true_fundamental(), points0, points1 + 2 * normals)
    # Half of the shift can be compensated in the first image, whose line is as near.
    assert error.max() < 2
    assert error.min() > 2 / np.sqrt(2) - 0.3


def test_points_on_their_epipoles_are_infinitely_far():
    matrix = essential_from_pose(np.eye(3), np.array([0.0, 0.0, 1.0]))
    assert sampson_error(matrix, np.zeros((1, 2)), np.zeros((1, 2)))[0] == np.inf


@given(angle=angles, seed=seeds)
def test_rotation_angle_is_the_angle_turned(angle: float, seed: int):
    axis = np.random.default_rng(seed).normal(size=3)
    rotation = Rotation.from_rotvec(np.radians(angle) * axis / np.linalg.norm(axis)).as_matrix()
    assert rotation_angle_deg(rotation) == pytest.approx(angle, abs=1e-6)


@given(turn=angles, tilt=angles, scale=st.floats(0.01, 100))
def test_pose_error_tells_rotation_and_direction_whatever_the_scale(turn: float, tilt: float, scale: float):
    rotation = Rotation.from_euler("x", turn, degrees=True).as_matrix() @ ROTATION
    translation = scale * Rotation.from_euler("z", tilt, degrees=True).as_matrix() @ [1, 0, 0]
    found = relative_pose_error(rotation, translation, true_rotation=ROTATION, true_translation=np.array([1.0, 0, 0]))
    assert found == pytest.approx((turn, tilt), abs=1e-6)


def test_a_translation_of_zero_has_the_worst_direction():
    found = relative_pose_error(ROTATION, np.zeros(3), true_rotation=ROTATION, true_translation=TRANSLATION)
    assert found == pytest.approx((0, 180), abs=1e-6)


@pytest.mark.parametrize("outliers", [0.0, 0.3, 0.6])
def test_fundamental_matrix_keeps_true_matches_and_drops_false_ones(outliers: float):
    x0, x1, is_true = two_views(1000, outliers=outliers, noise=0.5)
    matrix, inliers = estimate_fundamental(to_px(x0), to_px(x1), max_error_px=3.0)
    assert matrix is not None
    assert inliers[is_true].mean() > 0.99
    assert inliers[~is_true].sum() < 0.05 * 1000
    assert sampson_error(matrix, *map(to_px, two_views(500, seed=7)[:2])).mean() < 0.5


@pytest.mark.parametrize("outliers", [0.0, 0.3, 0.6])
def test_essential_matrix_keeps_true_matches_and_drops_false_ones(outliers: float):
    x0, x1, is_true = two_views(1000, outliers=outliers, noise=0.5)
    matrix, inliers = estimate_essential(x0, x1, max_error=3 / FOCAL)
    assert matrix is not None
    assert inliers[is_true].mean() > 0.98
    assert inliers[~is_true].sum() < 0.05 * 1000


@pytest.mark.parametrize("estimate", [estimate_fundamental, estimate_essential])
def test_same_seed_gives_the_same_matrix_and_another_seed_another(estimate):
    x0, x1, _ = two_views(400, outliers=0.5, noise=1.0)
    if estimate is estimate_fundamental:
        (x0, x1), error = (to_px(x0), to_px(x1)), {"max_error_px": 3.0}
    else:
        error = {"max_error": 3 / FOCAL}
    first, again, other = (estimate(x0, x1, **error, seed=seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("name", "estimate"), [("Fundamental", estimate_fundamental), ("Essential", estimate_essential)]
)
def test_where_opencv_fails_by_one_seed_another_is_tried(monkeypatch, name, estimate):
    find = getattr(cv2, f"find{name}Mat")

    def fails_by(*seeds: int) -> None:
        def found(*args):
            if args[-1].randomGeneratorState in seeds:
                raise cv2.error("model.empty()")
            return find(*args)

        monkeypatch.setattr(cv2, f"find{name}Mat", found)

    x0, x1 = two_views(100)[:2]
    if estimate is estimate_fundamental:
        x0, x1 = to_px(x0), to_px(x1)
    limit = {"max_error_px" if estimate is estimate_fundamental else "max_error": 1e-2}
    largest = 2**31 - 1
    fails_by(largest, 0)
    assert estimate(x0, x1, seed=largest, **limit)[1].all()
    fails_by(*range(3, 20))
    with pytest.raises(EstimationError, match="OpenCV fails"):
        estimate(x0, x1, seed=3, **limit)


@pytest.mark.parametrize("count", [0, 5, 7])
def test_too_few_points_give_no_fundamental_matrix(count: int):
    points = np.random.default_rng(0).uniform(0, 100, (count, 2))
    matrix, inliers = estimate_fundamental(points, points + 1, max_error_px=1.0)
    assert matrix is None
    assert inliers.shape == (count,)
    assert not inliers.any()


def test_identical_points_give_an_answer_and_no_crash():
    points = np.full((40, 2), 5.0)
    for matrix, inliers in (
        estimate_fundamental(points, points, max_error_px=1.0),
        estimate_essential(points / FOCAL, points / FOCAL, max_error=1e-3),
    ):
        assert matrix is None or np.isfinite(matrix).all()
        assert inliers.shape == (40,)


def test_symmetric_epipolar_error_equals_a_plain_loop():
    matrix = true_fundamental()
    points0, points1 = np.random.default_rng(2).uniform(0, 1000, (2, 20, 2))
    expected = []
    for p, q in zip(points0, points1, strict=True):
        x, y = np.append(p, 1), np.append(q, 1)
        line1, line0 = matrix @ x, matrix.T @ y
        in_second, in_first = (y @ line1) / np.hypot(*line1[:2]), (x @ line0) / np.hypot(*line0[:2])
        expected.append(in_first**2 + in_second**2)
    np.testing.assert_allclose(symmetric_epipolar_error(matrix, points0, points1), expected)


def test_a_point_on_its_epipole_has_no_symmetric_error():
    forward = essential_from_pose(np.eye(3), np.array([0, 0, 1.0]))
    points = np.array([[0.0, 0.0], [0.5, 0.25]])
    np.testing.assert_array_equal(symmetric_epipolar_error(forward, points, points * 2), [np.inf, 0])


def test_pose_comes_back_out_of_its_essential_matrix():
    x0, x1, _ = two_views(50)
    for sign in (1, -1):
        rotation, translation = pose_from_essential(sign * essential_from_pose(ROTATION, TRANSLATION), x0, x1)
        errors = relative_pose_error(rotation, translation, true_rotation=ROTATION, true_translation=TRANSLATION)
        assert max(errors) < 1e-4
        assert np.linalg.norm(translation) == pytest.approx(1)
