import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from romacli.keypoints.consensus import combine, weighted_medians

PREDICTIONS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(-400, 400), st.integers(-400, 400), st.integers(1, 64)),
    min_size=1,
    max_size=60,
)


def median_by_loop(values: np.ndarray, weights: np.ndarray) -> float:
    reached = 0.0
    for k in np.argsort(values, kind="stable"):
        reached += weights[k]
        if reached >= weights.sum() / 2:
            return values[k]
    raise AssertionError("half of the weight is always reached")


def combine_by_loop(ids, xy, weights, tolerance):
    for track in np.unique(ids):
        mine = ids == track
        median = [median_by_loop(xy[mine, axis], weights[mine]) for axis in (0, 1)]
        near = mine & (np.hypot(*(xy - median).T) < tolerance)
        support = weights[near].sum()
        mean = (weights[near, None] * xy[near]).sum(axis=0) / support if support else median
        yield track, mean, support, support / weights[mine].sum()


@given(PREDICTIONS)
def test_medians_and_means_equal_a_plain_loop(rows):
    table = np.array(rows, float)
    ids, xy, weights = table[:, 0].astype(int), table[:, 1:3] / 8, table[:, 3] / 64
    agreed = combine(ids, xy, weights, 3.1)
    tracks, means, support, share = zip(*combine_by_loop(ids, xy, weights, 3.1), strict=True)
    assert agreed.ids.tolist() == list(tracks)
    np.testing.assert_allclose(agreed.xy, means, atol=1e-4)
    np.testing.assert_allclose(agreed.support, support)
    np.testing.assert_allclose(agreed.share, share)


def test_a_confident_minority_does_not_move_the_consensus():
    ids = np.zeros(5, int)
    xy = np.array([[10, 10], [10.5, 10], [9.5, 10], [90, 10], [95, 10]])
    agreed = combine(ids, xy, np.array([1, 1, 1, 1, 0.5]), 3.0)
    np.testing.assert_allclose(agreed.xy, [[10, 10]], atol=1e-5)
    np.testing.assert_allclose(agreed.share, 3 / 4.5)


def test_medians_of_equal_values_are_that_value():
    assert weighted_medians(np.zeros(3, int), np.full(3, 7.0), np.ones(3)).tolist() == [7.0]


def test_no_predictions_agree_on_nothing():
    agreed = combine(np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros(0, np.float32), 3.0)
    assert agreed.xy.shape == (0, 2)
    assert len(agreed.ids) == 0
