import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from romacli.geometry.warp import (
    WarpField,
    cell_centres,
    compose,
    decode_targets,
    encode_targets,
    target_margin,
    target_step,
    warp_fields,
)
from romacli.types import CompactWarp

SIZE = (640, 480)


def affine_field(matrix: np.ndarray, offset: np.ndarray, weights: np.ndarray | None = None) -> WarpField:
    centres = cell_centres((20, 24), SIZE)
    weights = np.ones((20, 24), np.float32) if weights is None else weights
    return WarpField(centres @ matrix.T + offset, weights, source_size=SIZE, target_size=SIZE)


def test_cell_centres_of_a_worked_example():
    centres = cell_centres((2, 4), (8, 6))
    assert centres[..., 0].tolist() == [[1, 3, 5, 7]] * 2
    assert centres[..., 1].tolist() == [[1.5] * 4, [4.5] * 4]


@given(
    share=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    size=st.tuples(st.integers(16, 12000), st.integers(16, 12000)),
)
def test_targets_survive_storage_within_half_a_step(share, size):
    margin = target_margin(size)
    xy = np.array([[-margin + s * (max(size) + 2 * margin) for s in share]])
    error = np.abs(decode_targets(encode_targets(xy, size), size) - xy).max()
    assert error <= target_step(size) / 2 + 1e-6 * max(size)


def test_step_and_margin_follow_the_long_side():
    assert target_margin((1600, 1200)) == 200
    assert target_step((1200, 1600)) == pytest.approx(1.25 * 1600 / 65535)


def test_targets_beyond_the_margin_stop_there():
    codes = encode_targets(np.array([[-1e6, 1e6]]), (1600, 1200))
    assert codes.tolist() == [[0, 65535]]


def test_an_affine_warp_is_read_exactly_up_to_the_border():
    matrix, offset = np.array([[0.9, 0.1], [-0.2, 1.1]]), np.array([5, -3])
    points = np.random.default_rng(0).uniform((0, 0), SIZE, (500, 2))
    points = np.vstack((points, [[0, 0], SIZE]))
    sample = affine_field(matrix, offset).at(points, with_jacobian=True)
    np.testing.assert_allclose(sample.targets, points @ matrix.T + offset, atol=1e-3)
    np.testing.assert_allclose(sample.jacobians, np.broadcast_to(matrix, (502, 2, 2)), atol=1e-4)
    assert (sample.weights == 1).all()


def test_a_bilinear_warp_and_its_jacobian_match_finite_differences():
    x, y = np.moveaxis(cell_centres((20, 24), SIZE), -1, 0)
    targets = np.stack((x + 2e-4 * x * y, y - 1e-4 * x * y), axis=-1)
    field = WarpField(targets, np.ones((20, 24)), source_size=SIZE, target_size=SIZE)
    points = np.random.default_rng(1).uniform((20, 20), (600, 440), (200, 2))
    sample = field.at(points, with_jacobian=True)
    expected = np.stack((1 + 2e-4 * points[:, 1], 2e-4 * points[:, 0]), axis=1)
    np.testing.assert_allclose(sample.targets[:, 0], points[:, 0] + 2e-4 * points.prod(axis=1), atol=1e-2)
    np.testing.assert_allclose(sample.jacobians[:, 0], expected, atol=1e-3)


def test_weight_is_that_of_the_weakest_node_and_zero_outside():
    weights = np.ones((20, 24), np.float32)
    weights[5, 7] = 0.25
    weights[12, 3] = 0
    field = affine_field(np.eye(2), np.zeros(2), weights)
    corner = cell_centres((20, 24), SIZE)
    inside = corner[[5, 5, 12], [7, 9, 3]] + 1.0
    outside = [[-0.1, 50], [50, 480.1], [641, 10]]
    assert field.at(np.vstack((inside, outside))).weights.tolist() == [0.25, 1, 0, 0, 0, 0]


def test_a_warp_torn_between_two_surfaces_is_refused():
    centres = cell_centres((20, 24), SIZE)
    targets = centres + np.where(np.arange(24) >= 12, 40.0, 0.0)[None, :, None]
    targets[:10] += np.where(np.arange(24) >= 12, 300.0, 0.0)[None, :, None]
    field = WarpField(targets, np.ones((20, 24)), source_size=SIZE, target_size=SIZE)
    cell = SIZE[0] / 24
    torn, bent, whole = [12 * cell, 100], [12 * cell, 240], [6 * cell, 100]
    assert field.at(np.array([torn, bent, whole])).weights.tolist() == [0, 0, 1]


def test_refusal_does_not_depend_on_the_resolution_of_the_target():
    centres = cell_centres((20, 24), SIZE)
    noise = np.random.default_rng(0).normal(0, 4, centres.shape)
    points = np.random.default_rng(1).uniform((0, 0), SIZE, (400, 2))
    weights = [
        WarpField((centres + noise) * k, np.ones((20, 24)), source_size=SIZE, target_size=(640 * k, 480 * k))
        .at(points)
        .weights
        for k in (1, 4)
    ]
    assert 0 < weights[0].mean() < 1
    assert (weights[0] == weights[1]).all()


def test_too_few_nodes_are_named():
    with pytest.raises(ValueError, match=r"\(1, 24\) nodes"):
        WarpField(np.zeros((1, 24, 2)), np.ones((1, 24)), source_size=SIZE, target_size=SIZE)


def test_compose_follows_warps_and_keeps_the_smallest_weight():
    half = affine_field(np.eye(2), np.array([10, 0]), np.full((20, 24), 0.5, np.float32))
    whole = affine_field(np.eye(2), np.array([0, 20]))
    sample = compose(np.array([[100.0, 100.0]]), (whole, half, whole))
    np.testing.assert_allclose(sample.targets, [[110, 140]], atol=1e-3)
    assert sample.weights.tolist() == [0.5]


def test_both_directions_of_a_record_are_read_in_their_own_pixels():
    size_A, size_B = (640, 480), (1280, 960)
    centres_A, centres_B = cell_centres((20, 20), size_A), cell_centres((20, 20), size_B)
    weight = np.full((20, 20), 255, np.uint8)
    record = CompactWarp(
        encode_targets(centres_A * 2, size_B), weight, encode_targets(centres_B / 2, size_A), weight,
        size_A, size_B, 1.0,
    )  # fmt: skip
    forward, backward = warp_fields(record)
    np.testing.assert_allclose(forward.at(np.array([[100.0, 50.0]])).targets, [[200, 100]], atol=0.02)
    np.testing.assert_allclose(backward.at(np.array([[100.0, 50.0]])).targets, [[50, 25]], atol=0.01)
