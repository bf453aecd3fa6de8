"""Points, sizes and warps of rotated images, against arrays rotated pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from romacli.geometry.turns import turn_back, turn_image, turn_points_back, turn_size
from romacli.geometry.warp import cell_centres, decode_targets, encode_targets
from romacli.types import CompactWarp

SIZE_A, SIZE_B = (64, 40), (50, 90)


@pytest.mark.parametrize("turns", range(-1, 6))
def test_a_pixel_of_a_turned_image_leads_back_to_itself(turns):
    width, height = SIZE_A
    numbers = np.arange(width * height).reshape(height, width)
    turned = turn_image(numbers, turns)
    assert turned.shape[::-1] == turn_size(SIZE_A, turns)
    y, x = np.mgrid[: turned.shape[0], : turned.shape[1]]
    back = turn_points_back(np.stack((x, y), axis=-1) + 0.5, SIZE_A, turns)
    columns, rows = np.floor(back).astype(int).reshape(-1, 2).T
    np.testing.assert_array_equal(numbers[rows, columns], turned.ravel())
    np.testing.assert_allclose(back % 1, 0.5)


def test_one_turn_is_clockwise():
    assert turn_image(np.array([[1, 2], [3, 4]]), 1).tolist() == [[3, 1], [4, 2]]


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (9, 1, 3)])
def test_turned_lines_one_pixel_wide_are_fit_for_tensors(shape):
    for turns in range(4):
        assert torch.from_numpy(turn_image(np.zeros(shape, np.uint8), turns)).numel() == np.prod(shape)


@given(turns_A=st.integers(0, 5), turns_B=st.integers(0, 5), shape=st.sampled_from([(6, 6), (8, 5)]))
def test_warps_between_turned_images_are_those_between_the_images(turns_A, turns_B, shape):
    """An affine motion defined between the rotated images is recovered between the stored ones."""

    def motion(points):
        return points * 0.7 + (5, 20)

    def back(points):
        return (points - (5, 20)) / 0.7

    def direction(turns, stored, other_turns, other_stored, move):
        places = turn_points_back(cell_centres(shape, turn_size(stored, turns)), stored, turns)
        targets = move(places)
        ahead = turn_points_back(targets, turn_size(other_stored, other_turns), -other_turns)
        weights = (np.arange(shape[0] * shape[1]) % 251).reshape(shape).astype(np.uint8)
        return encode_targets(ahead, turn_size(other_stored, other_turns)), weights

    forward = direction(turns_A, SIZE_A, turns_B, SIZE_B, motion)
    backward = direction(turns_B, SIZE_B, turns_A, SIZE_A, back)
    sizes = turn_size(SIZE_A, turns_A), turn_size(SIZE_B, turns_B)
    record = turn_back(CompactWarp(*forward, *backward, *sizes, 0.5), turns_A, turns_B)
    assert (record.size_A, record.size_B) == (SIZE_A, SIZE_B)
    for weights, turns, before in (
        (record.weight_AB, turns_A, forward[1]),
        (record.weight_BA, turns_B, backward[1]),
    ):
        np.testing.assert_array_equal(turn_image(weights, turns), before)
    expected = motion(cell_centres(record.weight_AB.shape, SIZE_A))
    np.testing.assert_allclose(decode_targets(record.target_AB, SIZE_B), expected, atol=0.01)
    inside = decode_targets(record.target_BA, SIZE_A)
    expected = np.clip(back(cell_centres(record.weight_BA.shape, SIZE_B)), -8, 72)
    np.testing.assert_allclose(np.clip(inside, -8, 72)[..., 0], expected[..., 0], atol=0.01)
