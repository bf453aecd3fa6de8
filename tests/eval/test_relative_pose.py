"""AUC against hand-worked curves, and poses from exact, rotated, noisy and shuffled point pairs of known motion."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.stats import t as student_t

from romacli.eval.pose_list import PosedPair
from romacli.eval.relative_pose import (
    PoseOptions,
    score_pair,
    summarise,
)
from romacli.eval.statistics import interval, pose_auc, student_t_975
from romacli.types import Correspondences

SIZE = (640, 480)
K = np.array([[600, 0, 319.5], [0, 600, 239.5], [0, 0, 1.0]])
ROTATION = Rotation.from_euler("xyz", [3, 15, -4], degrees=True).as_matrix()
TRANSLATION = np.array([-1.0, 0.1, 0.3])


def posed(turns: tuple[int, int] = (0, 0)) -> PosedPair:
    return PosedPair(("a", "b"), turns, (K, K), ROTATION, TRANSLATION, 1)


def views(count: int = 300, *, noise_px: float = 0.2, wrong: float = 0.0, seed: int = 0) -> list[np.ndarray]:
    """COLMAP px of a box of points in both photographs."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (count, 3)) * [1.6, 1.2, 1] + [0, 0, 6]
    projected = [p @ K.T for p in (points, points @ ROTATION.T + TRANSLATION)]
    pixels = [p[:, :2] / p[:, 2:] + 0.5 + rng.normal(0, noise_px, (count, 2)) for p in projected]
    bad = rng.random(count) < wrong
    pixels[1][bad] = rng.uniform(0, 1, (bad.sum(), 2)) * SIZE
    return pixels


def scored(points: list[np.ndarray], turns: tuple[int, int] = (0, 0), sizes=(SIZE, SIZE), **options):
    found = Correspondences(*(p.astype(np.float32) for p in points), np.ones(len(points[0]), np.float32))
    return score_pair(posed(turns), found, sizes, PoseOptions(**{"ransac_seeds": 3, **options}))


def test_good_matches_give_the_pose_and_shuffled_ones_do_not():
    score = scored(views())
    assert score.errors_deg.max() < 0.5
    assert score.shuffled_errors_deg.min() > 10
    assert score.precision > 0.98
    assert score.inliers > 0.9 > 0.3 > score.shuffled_inliers
    result = summarise([score])
    assert result.auc[5.0].mean > 0.9
    assert result.shuffled_auc[20.0].mean < 0.2


def test_precision_counts_the_matches_that_fit_the_truth():
    assert scored(views(2000, wrong=0.4)).precision == pytest.approx(0.6, abs=0.06)


@pytest.mark.parametrize("turns", [(1, 0), (0, 2), (3, 1)])
def test_turned_photographs_are_judged_in_their_stored_frame(turns):
    points, sizes = [], []
    for xy, k in zip(views(), turns, strict=True):
        x, y, (width, height) = xy[:, 0], xy[:, 1], SIZE
        turned = ((x, y), (y, width - x), (width - x, height - y), (height - y, x))[k]
        points.append(np.stack(turned, axis=1))
        sizes.append(SIZE if k % 2 == 0 else SIZE[::-1])
    assert scored(points, turns, sizes).errors_deg.max() < 0.5


@pytest.mark.parametrize("count", [0, 4])
def test_too_few_matches_are_an_infinite_error(count):
    score = scored([p[:count] for p in views()])
    assert np.isinf(score.errors_deg).all()
    result = summarise([score, scored(views())])
    assert result.without_pose == 1
    assert result.auc[20.0].mean < 0.51


def test_auc_worked_by_hand():
    errors = np.array([2.0, 6.0, math.inf])
    # Recall rises to 1/3 at 2 and to 2/3 at 6, the latter beyond the threshold of 5.
    assert pose_auc(errors, 5) == pytest.approx((2 * (1 / 3) / 2 + 3 * (1 / 3)) / 5)
    assert pose_auc(errors, 10) == pytest.approx((2 / 6 + 4 * (1 / 3 + 2 / 3) / 2 + 4 * 2 / 3) / 10)
    assert pose_auc(np.array([math.inf]), 5) == 0
    assert pose_auc(np.zeros(3), 5) == 1


@given(st.lists(st.floats(0, 180) | st.just(math.inf), min_size=1, max_size=30), st.sampled_from([5.0, 10.0, 20.0]))
def test_auc_equals_the_integral_of_the_recall_curve(errors, threshold):
    inside = sorted(e for e in errors if e < threshold)
    x = [0.0, *inside, threshold]
    y = [i / len(errors) for i in range(len(inside) + 1)]
    y.append(y[-1])
    expected = sum((x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2 for i in range(len(inside) + 1))
    assert pose_auc(np.array(errors), threshold) == pytest.approx(expected / threshold, abs=1e-12)


def test_interval_holds_the_mean_of_normal_samples_in_95_of_100():
    rng = np.random.default_rng(0)
    intervals = [interval(rng.normal(3, 1, 5)) for _ in range(300)]
    assert np.mean([i.low < 3 < i.high for i in intervals]) == pytest.approx(0.95, abs=0.03)
    assert math.isnan(interval([1.0]).low)


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 50])
def test_quantile_of_students_t_is_scipys(freedom):
    assert student_t_975(freedom) == pytest.approx(student_t.ppf(0.975, freedom), abs=1e-3)


def test_seeds_change_the_estimate_and_nothing_else():
    points = views(wrong=0.3, noise_px=1.0)
    first, again, other = scored(points), scored(points), scored(points, seed=7)
    np.testing.assert_array_equal(first.errors_deg, again.errors_deg)
    assert not np.array_equal(first.errors_deg, other.errors_deg)
