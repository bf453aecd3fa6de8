from __future__ import annotations

import math

import numpy as np
import pytest

from romacli.eval.certainty import area_under_roc, reliability


def test_area_under_roc_worked_by_hand():
    score, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert area_under_roc(score, positive) == pytest.approx(0.75)
    assert np.isnan(area_under_roc(score, np.ones(4, bool)))


def test_reliability_worked_by_hand():
    certainty, right = np.array([0.1, 0.3, 0.9, 1.0]), np.array([False, True, True, True])
    low, high = reliability(certainty, right, bins=2).bins
    assert (low.low, low.high, low.count, high.count) == (0, 0.5, 2, 2)
    assert (low.mean_certainty, low.share_right) == pytest.approx((0.2, 0.5))
    assert (high.mean_certainty, high.share_right) == pytest.approx((0.95, 1.0))
    assert reliability(certainty, right, bins=2).expected_error == pytest.approx((0.3 + 0.05) / 2)


def test_an_answer_that_comes_true_as_often_as_it_says_is_calibrated_and_a_boast_is_not():
    rng = np.random.default_rng(0)
    certainty = rng.random(200_000)
    right = rng.random(200_000) < certainty
    assert reliability(certainty, right).expected_error < 0.01
    assert reliability(np.sqrt(certainty), right).expected_error > 0.1


def test_empty_bins_say_nothing():
    table = reliability(np.array([0.95]), np.array([True]))
    assert [row.count for row in table.bins] == [0] * 9 + [1]
    assert math.isnan(table.bins[0].share_right)
    assert table.expected_error == pytest.approx(0.05)
