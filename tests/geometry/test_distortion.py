"""Fundamental matrices of distorted pictures, and what they tell of focal lengths and centres."""

from __future__ import annotations

import numpy as np
import pytest
from support.uncalibrated import turned

from romacli.geometry.distortion import fit_fundamental
from romacli.geometry.focal import best_centre, best_focal, focal_curves, shifted

FOCAL = 0.9


def matched(distortion: float, pairs: int = 8) -> np.ndarray:
    """Matches (N, 2, 200, 2) without noise, in longer sides, some of them off by pixels."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(pairs):
        cloud = rng.uniform([-3, -2, 5], [3, 2, 12], (200, 3))
        ends = cloud, (cloud - rng.uniform(-0.8, 0.8, 3)) @ turned(*rng.normal(0, 6, 3)).T
        straight = [FOCAL * end[:, :2] / end[:, 2:] for end in ends]
        # r / (1 + d r^2) = s has the root r = 2 s / (1 + sqrt(1 - 4 d s^2))
        root = [np.sqrt(1 - 4 * distortion * (one**2).sum(axis=1, keepdims=True)) for one in straight]
        seen = [2 * one / (1 + part) for one, part in zip(straight, root, strict=True)]
        seen[1][:10] += rng.uniform(-0.006, 0.006, (10, 2))
        found.append(seen)
    return np.array(found)


@pytest.mark.parametrize("distortion", [-0.3, 0.0, 0.1])
def test_errors_are_least_at_the_true_distortion_and_tell_the_focal_length(distortion: float) -> None:
    points = matched(distortion)
    values = distortion + np.array([-0.1, 0.0, 0.1])
    errors = [np.median(fit_fundamental(points, value)[1]) for value in values]
    assert errors[1] < 0.1 * min(errors[0], errors[2])
    matrices, _ = fit_fundamental(points, np.full((len(points), 2, 1), distortion))
    unknown = np.full(len(points), np.nan)
    assert best_focal(focal_curves(matrices, unknown, unknown)) == pytest.approx(FOCAL, rel=0.02)


def test_the_centre_is_found_where_it_is() -> None:
    matrices, _ = fit_fundamental(matched(0.0), 0.0)
    place, contrast = best_centre(shifted(matrices, (-0.1, 0.05), (-0.1, 0.05)))
    assert place == pytest.approx((0.1, -0.05), abs=0.006)
    assert contrast > 2
    assert np.hypot(*best_centre(matrices)[0]) < 0.006
