from dataclasses import replace

import numpy as np
import pytest
import torch

from romacli.geometry.coordinates import from_colmap_pixels
from romacli.geometry.warp import cell_centres, decode_targets
from romacli.matchers.compact import CompactOptions, compact, compact_all
from romacli.types import DenseMatch, Size

SHAPE = (96, 96)
OPTIONS = CompactOptions(nodes=32)
TILTED = np.array([[0.9, 0.12, 30], [-0.08, 0.95, 25], [6e-5, -4e-5, 1]])


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    homogeneous = np.concatenate((points, np.ones((*points.shape[:-1], 1))), axis=-1) @ matrix.T
    return homogeneous[..., :2] / homogeneous[..., 2:]


def direction(matrix, size_from: Size, size_to: Size, shape=SHAPE):
    targets = apply(matrix, cell_centres(shape, size_from))
    warp = torch.from_numpy(from_colmap_pixels(targets, size_to)).float()
    inside = (warp.abs() < 1).all(-1)
    return warp.clamp(-1, 1), inside.float()


def homography_match(matrix, size_A: Size = (640, 480), size_B: Size = (640, 480), shape=SHAPE) -> DenseMatch:
    forward = direction(matrix, size_A, size_B, shape)
    backward = direction(np.linalg.inv(matrix), size_B, size_A, shape)
    return DenseMatch(*forward, *backward, size_A, size_B)


def test_a_homography_is_kept_exactly_at_the_centres_of_cells():
    match = homography_match(TILTED)
    record = compact(match, OPTIONS)
    assert record.weight_AB.shape == (32, 32)
    for target, weight, matrix in (
        (record.target_AB, record.weight_AB, TILTED),
        (record.target_BA, record.weight_BA, np.linalg.inv(TILTED)),
    ):
        error = np.linalg.norm(
            decode_targets(target, (640, 480)) - apply(matrix, cell_centres((32, 32), (640, 480))), axis=-1
        )
        assert (weight > 0).mean() > 0.75
        assert error[weight > 0].max() < 0.05
        assert np.median(weight[weight > 0]) > 250


def test_cells_that_leave_the_other_image_are_not_usable():
    shift = np.array([[1, 0, 320], [0, 1, 0], [0, 0, 1.0]])
    record = compact(homography_match(shift), OPTIONS)
    assert (record.weight_AB[:, 17:] == 0).all()
    assert (record.weight_AB[2:-2, 2:14] > 0).all()
    assert (record.weight_BA[:, :15] == 0).all()
    assert record.overlap == pytest.approx(0.5, abs=0.04)


def test_both_directions_must_agree_within_the_limit():
    size = (640, 480)
    near = np.array([[1, 0, 4], [0, 1, 0], [0, 0, 1.0]])
    match = homography_match(near)
    wrong, _ = direction(np.eye(3), size, size)
    match = replace(match, warp_BA=wrong, certainty_BA=torch.ones(SHAPE))
    assert compact(match, replace(OPTIONS, max_cycle_error=3.9 / 640)).overlap == 0
    assert compact(match, replace(OPTIONS, max_cycle_error=4.1 / 640)).overlap > 0.9


def test_what_the_network_knows_of_its_error_takes_part_in_the_weight():
    match = homography_match(np.eye(3))
    noise = 1e-3 * torch.randn(*SHAPE, 2, generator=torch.Generator().manual_seed(0))
    match = replace(match, warp_AB=(match.warp_AB + noise).clamp(-1, 1))
    without = compact(match, OPTIONS)
    deviation = torch.full(SHAPE, 0.01)  # px
    deviation[:, 48:] = 2
    precision = torch.eye(2) / deviation.square()[..., None, None]
    told = compact(replace(match, precision_AB=precision, precision_BA=precision), OPTIONS)
    assert ((told.weight_AB > 0) == (without.weight_AB > 0)).all()
    left, right = np.median(told.weight_AB[4:-4, 4:12]), np.median(told.weight_AB[4:-4, 20:28])
    plain = np.median(without.weight_AB[4:-4, 4:-4])
    assert right < 0.6 * plain < plain < left
    one_way = compact(replace(match, precision_AB=precision), OPTIONS)
    assert [record.precise for record in (told, without, one_way)] == [True, False, False]
    np.testing.assert_array_equal(one_way.weight_AB, without.weight_AB)


def test_a_precision_counts_in_pixels_of_the_target():
    # The same error in px of a wide target is a larger share of its long side the narrower the image is.
    wide = replace(homography_match(np.eye(3)), size_A=(640, 480), size_B=(640, 480))
    noise = 1e-3 * torch.randn(*SHAPE, 2, generator=torch.Generator().manual_seed(0))
    across, down = torch.tensor([[1.0, 0], [0, 1e4]]), torch.tensor([[1e4, 0], [0, 1.0]])
    weights = []
    for precision in (across, down):
        told = {"precision_AB": precision.expand(*SHAPE, 2, 2), "precision_BA": precision.expand(*SHAPE, 2, 2)}
        record = compact(replace(wide, warp_AB=(wide.warp_AB + noise).clamp(-1, 1), **told), OPTIONS)
        weights.append(np.median(record.weight_AB[4:-4, 4:-4]))
    assert weights[0] < weights[1]


def test_uncertain_regions_get_no_weight():
    match = homography_match(np.eye(3))
    certainty = torch.ones(SHAPE)
    certainty[:, :48] = 0.1
    record = compact(replace(match, certainty_AB=certainty), OPTIONS)
    assert (record.weight_AB[:, :16] == 0).all()
    assert (record.weight_AB[:, 16:] == 255).all()
    assert (record.weight_BA == 255).all()


def test_weight_falls_where_the_directions_disagree_more():
    match = homography_match(np.eye(3))
    noise = torch.zeros(*SHAPE, 2)
    noise[:, 48:] = torch.from_numpy(np.random.default_rng(0).normal(0, 0.0015, (96, 48, 2)))
    record = compact(replace(match, warp_AB=match.warp_AB + noise), OPTIONS)
    calm, rough = record.weight_AB[:, :14], record.weight_AB[:, 18:]
    assert calm.min() == 255
    assert 0 < np.median(rough) < 200


def test_a_partly_usable_cell_is_not_shifted():
    match = homography_match(TILTED)
    certainty = match.certainty_AB.clone()
    certainty[::6, ::6] = 0
    certainty[1::6, ::6] = 0
    record = compact(replace(match, certainty_AB=certainty), OPTIONS)
    expected = apply(TILTED, cell_centres((32, 32), (640, 480)))
    usable = (record.weight_AB > 0) & (np.indices((32, 32)) % 2 == 0).all(axis=0)
    assert usable.sum() > 150
    error = np.linalg.norm(decode_targets(record.target_AB, (640, 480)) - expected, axis=-1)
    assert error[usable].max() < 0.05


@pytest.mark.parametrize("resolution", [1, 2, 5])
def test_resolution_of_either_image_changes_nothing_but_pixels(resolution):
    scaled = np.diag([resolution, resolution, 1]) @ TILTED
    plain = compact(homography_match(TILTED), OPTIONS)
    fine = compact(homography_match(scaled, size_B=(640 * resolution, 480 * resolution)), OPTIONS)
    np.testing.assert_allclose(plain.weight_AB.astype(int), fine.weight_AB, atol=1)
    np.testing.assert_allclose(plain.target_AB.astype(int), fine.target_AB, atol=1)
    assert fine.overlap == pytest.approx(plain.overlap)


def test_a_zoom_keeps_the_direction_into_the_smaller_picture():
    """A matcher accurate to 2 px of the wide image has an error of 8 px in an image at 4 times the scale."""
    zoom = np.array([[4, 0, -960], [0, 4, -720], [0, 0, 1.0]])
    match = homography_match(zoom)
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.normal(0, 1, (12, 12, 2))).permute(2, 0, 1)[None]
    smooth = torch.nn.functional.interpolate(coarse, SHAPE, mode="bicubic")[0].permute(1, 2, 0).float()
    match = replace(match, warp_BA=(match.warp_BA + smooth * (2 / 320)).float())
    record = compact(match, replace(OPTIONS, max_cycle_error=6 / 640))
    assert (record.weight_BA > 0).mean() > 0.8


def test_a_collapsed_warp_is_not_excused_by_its_zoom():
    """Blocks that map to one point each look like a zoom; the other direction shows that there is none."""
    match = homography_match(np.eye(3))
    blocks = match.warp_AB.unflatten(1, (4, 24)).unflatten(0, (4, 24))
    collapsed = blocks.mean(dim=(1, 3), keepdim=True).expand_as(blocks).flatten(2, 3).flatten(0, 1)
    record = compact(replace(match, warp_AB=collapsed), replace(OPTIONS, max_cycle_error=0.04))
    assert (record.weight_AB > 0).mean() < 0.25


@pytest.mark.parametrize("zoom", [0.6, 1.0, 1.8])
def test_weight_tells_the_error_in_the_target_whatever_the_zoom(zoom):
    """Errors of 0.5 px at 1600 in the target give weight 1/2, with a zoom or without."""
    centre = np.array([[1, 0, 320], [0, 1, 240], [0, 0, 1.0]])
    match = homography_match(centre @ np.diag([zoom, zoom, 1]) @ np.linalg.inv(centre))
    error = 2 * 0.5 / 1600
    noise = np.random.default_rng(0).normal(0, error, (*SHAPE, 2)) * (1, 640 / 480)
    record = compact(replace(match, warp_AB=match.warp_AB + torch.from_numpy(noise).float()), OPTIONS)
    inner = record.weight_AB[8:24, 8:24]
    assert np.median(inner) / 255 == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("shape", "nodes", "cells"),
    [((96, 96), 32, (32, 32)), ((96, 64), 30, (48, 32)), ((97, 96), 32, (97, 96)), ((24, 24), 32, (24, 24))],
)
def test_stride_divides_both_sides_and_leaves_enough_nodes(shape, nodes, cells):
    record = compact(homography_match(np.eye(3), shape=shape), CompactOptions(nodes=nodes))
    assert record.weight_AB.shape == cells


def test_a_batch_equals_its_pairs():
    matches = [homography_match(TILTED), homography_match(np.eye(3), (300, 400), (640, 480))]
    for batched, match in zip(compact_all(matches, OPTIONS), matches, strict=True):
        alone = compact(match, OPTIONS)
        assert batched.overlap == alone.overlap
        for field in ("target_AB", "weight_AB", "target_BA", "weight_BA"):
            np.testing.assert_array_equal(getattr(batched, field), getattr(alone, field))


def test_swapping_the_images_swaps_the_record():
    match = homography_match(TILTED, (640, 480), (400, 500))
    swapped = DenseMatch(
        match.warp_BA, match.certainty_BA, match.warp_AB, match.certainty_AB, match.size_B, match.size_A
    )
    one, other = compact(match, OPTIONS), compact(swapped, OPTIONS)
    np.testing.assert_array_equal(one.target_AB, other.target_BA)
    np.testing.assert_array_equal(one.weight_BA, other.weight_AB)
    assert one.overlap == other.overlap


def test_no_pairs_make_no_records():
    assert compact_all([]) == []


def test_one_direction_is_refused():
    match = replace(homography_match(np.eye(3)), warp_BA=None, certainty_BA=None)
    with pytest.raises(ValueError, match="both directions"):
        compact(match, OPTIONS)
