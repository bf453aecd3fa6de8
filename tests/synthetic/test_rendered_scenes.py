from __future__ import annotations

import cv2
import numpy as np
import pytest

from romacli.synthetic.scenes import Camera, TexturedPlane, render_view, warp_between

SIZE = (64, 48)
INTRINSICS = np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])


def camera(*, centre=(0.0, 0.0, 0.0), yaw=0.0, size=SIZE):
    rotation = cv2.Rodrigues(np.array([0, yaw, 0]))[0]
    return Camera(INTRINSICS, rotation, -rotation @ np.array(centre), size)


def smooth_texture(seed=0):
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (128, 128), interpolation=cv2.INTER_CUBIC)


def wall(depth, *, width=6.0, seed=0, **kwargs):
    origin = np.array([-width / 2, -width / 2, depth])
    return TexturedPlane(smooth_texture(seed), origin, np.array([width, 0, 0]), np.array([0, width, 0]), **kwargs)


def test_inverse_depth_is_that_of_the_nearest_plane():
    _, index, inverse_depth = render_view([wall(4.0), wall(2.0, width=0.5)], camera())
    assert index[24, 32] == 1
    assert inverse_depth[24, 32] == pytest.approx(0.5)
    assert index[2, 2] == 0
    assert inverse_depth[2, 2] == pytest.approx(0.25)


def test_pixels_that_see_nothing_are_marked():
    rgb, index, inverse_depth = render_view([wall(4.0, width=1.0)], camera())
    assert index[0, 0] == -1
    assert inverse_depth[0, 0] == 0
    assert (rgb[0, 0] == 127).all()


def test_mask_lets_the_wall_behind_show_through():
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 16:] = 255
    _, index, _ = render_view([wall(4.0), wall(2.0, width=1.0, mask=mask)], camera())
    assert index[24, 36] == 1
    assert index[24, 28] == 0


def test_plane_behind_the_camera_is_not_drawn():
    _, index, _ = render_view([wall(-2.0), wall(-2.0, endless=True)], camera())
    assert (index == -1).all()


def test_endless_plane_fills_the_picture():
    _, index, _ = render_view([wall(4.0, width=0.3, endless=True)], camera())
    assert (index == 0).all()


def test_warp_of_a_frontal_wall_is_the_disparity_worked_by_hand():
    camera_A, camera_B = camera(), camera(centre=(0.2, 0, 0))
    planes = [wall(4.0)]
    view_A = render_view(planes, camera_A)
    view_B = render_view(planes, camera_B)
    warp, visible = warp_between(camera_A, view_A, camera_B, view_B)
    shift = 60 * 0.2 / 4
    np.testing.assert_allclose(warp[10, 20], (20.5 - shift, 10.5), atol=1e-4)
    assert visible[10, 20]
    assert not visible[10, 1]


def test_wall_behind_a_panel_is_not_visible_from_the_other_side():
    camera_A, camera_B = camera(), camera(centre=(1.0, 0, 0))
    planes = [wall(4.0), wall(2.0, width=0.6)]
    view_A = render_view(planes, camera_A)
    view_B = render_view(planes, camera_B)
    warp, visible = warp_between(camera_A, view_A, camera_B, view_B)
    hidden = (view_A.plane_index == 0) & (view_B.plane_index[_nearest(warp)] == 1) & _inside(warp)
    assert hidden.sum() > 20
    assert not visible[hidden].any()


def test_warped_picture_agrees_with_the_other_within_grey_levels():
    camera_A, camera_B = camera(), camera(centre=(0.4, -0.2, 0.6), yaw=0.12)
    planes = [wall(4.0, endless=True), wall(2.5, width=1.0, seed=1)]
    view_A = render_view(planes, camera_A)
    view_B = render_view(planes, camera_B)
    warp, visible = warp_between(camera_A, view_A, camera_B, view_B)
    warped = cv2.remap(view_B.rgb, warp[..., 0] - 0.5, warp[..., 1] - 0.5, cv2.INTER_LINEAR)
    difference = np.abs(warped.astype(int) - view_A.rgb)[visible]
    assert visible.mean() > 0.6
    assert np.median(difference) <= 3
    assert np.percentile(difference, 90) <= 12


def test_forward_and_backward_warps_are_inverse_of_each_other():
    camera_A, camera_B = camera(), camera(centre=(0.5, 0.1, -0.5), yaw=-0.15)
    planes = [wall(4.0, endless=True)]
    view_A = render_view(planes, camera_A)
    view_B = render_view(planes, camera_B)
    forward, visible = warp_between(camera_A, view_A, camera_B, view_B)
    backward, _ = warp_between(camera_B, view_B, camera_A, view_A)
    returned = cv2.remap(backward, forward[..., 0] - 0.5, forward[..., 1] - 0.5, cv2.INTER_LINEAR)
    y, x = np.mgrid[:48, :64] + 0.5
    inner = visible & (np.abs(forward - (32, 24)) < (30, 22)).all(axis=-1)
    error = np.linalg.norm(returned - np.stack((x, y), axis=-1), axis=-1)[inner]
    assert inner.sum() > 1000
    assert error.max() < 0.05


def _nearest(warp):
    column = np.clip(warp[..., 0], 0, SIZE[0] - 1).astype(int)
    return np.clip(warp[..., 1], 0, SIZE[1] - 1).astype(int), column


def _inside(warp):
    return ((warp > 0) & (warp < SIZE)).all(axis=-1)
