"""Alignment and pose errors on poses moved by known amounts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from support.small_scene import look_at

from romacli.colmap.poses import Pose, align_similarity, compare_poses, read_poses
from romacli.errors import InputError

seeds = st.integers(0, 10_000)


def orbit(count=5):
    angles = np.linspace(0, 2, count)
    return {f"{n}.jpg": look_at(np.array([np.sin(a), 0.1 * n, -np.cos(a)]), np.zeros(3)) for n, a in enumerate(angles)}


def in_another_world(poses, *, scale, turn, shift):
    """The same cameras where x_new = scale turn x_old + shift."""
    moved = {}
    for name, pose in poses.items():
        rotation = pose.rotation @ turn.T
        moved[name] = Pose(rotation, -rotation @ (scale * turn @ pose.centre + shift))
    return moved


@given(seed=seeds, scale=st.floats(0.01, 100))
def test_similarity_is_found_again(seed, scale):
    rng = np.random.default_rng(seed)
    source, turn, shift = rng.normal(size=(6, 3)), Rotation.random(rng=rng).as_matrix(), rng.normal(size=3)
    target = scale * source @ turn.T + shift
    found = align_similarity(source, target)
    assert found.scale == pytest.approx(scale)
    np.testing.assert_allclose(found.rotation, turn, atol=1e-9)
    np.testing.assert_allclose(found.apply(source), target, atol=1e-9 * (1 + scale))


def test_similarity_of_mirrored_points_is_no_mirror():
    source = np.random.default_rng(0).normal(size=(10, 3))
    assert np.linalg.det(align_similarity(source, source * [1, 1, -1]).rotation) == pytest.approx(1)


@given(seed=seeds, scale=st.floats(0.01, 100))
def test_poses_in_another_world_have_no_error(seed, scale):
    rng = np.random.default_rng(seed)
    poses = orbit()
    turn = Rotation.random(rng=rng).as_matrix()
    moved = in_another_world(poses, scale=scale, turn=turn, shift=rng.normal(size=3))
    errors = compare_poses(moved, poses)
    assert errors.names == tuple(sorted(poses))
    assert errors.missing == ()
    assert errors.rotation_deg.max() < 1e-5
    assert errors.position.max() < 1e-9


def test_one_turned_camera_shows_by_its_angle():
    poses = orbit(9)
    turned = dict(poses)
    turn = Rotation.from_euler("y", 10, degrees=True).as_matrix()
    turned["4.jpg"] = Pose(turn @ poses["4.jpg"].rotation, turn @ poses["4.jpg"].translation)
    errors = compare_poses(turned, poses)
    # The common rotation absorbs its share of the one error: a ninth.
    assert errors.rotation_deg[4] == pytest.approx(10 * 8 / 9, abs=0.1)
    assert np.delete(errors.rotation_deg, 4) == pytest.approx(10 / 9, abs=0.1)
    assert errors.position.max() < 1e-9


def test_one_moved_camera_shows_relative_to_the_extent():
    poses = orbit(9)
    centres = np.array([pose.centre for pose in poses.values()])
    extent = np.linalg.norm(centres - centres.mean(0), axis=1).mean()
    moved = dict(poses)
    shifted = poses["4.jpg"].centre + [0, 0, 0.01 * extent]
    moved["4.jpg"] = Pose(poses["4.jpg"].rotation, -poses["4.jpg"].rotation @ shifted)
    errors = compare_poses(moved, poses)
    assert errors.position.argmax() == 4
    assert 0.005 < errors.position[4] < 0.01


def test_centres_on_a_line_do_not_spoil_rotations():
    poses = {f"{n}.jpg": look_at(np.array([0.3 * n, 0, -3.0]), np.zeros(3)) for n in range(4)}
    turn = Rotation.from_euler("x", 50, degrees=True).as_matrix()
    errors = compare_poses(in_another_world(poses, scale=2.0, turn=turn, shift=np.ones(3)), poses)
    assert errors.rotation_deg.max() < 1e-5
    assert errors.position.max() < 1e-9


def test_images_without_a_pose_are_named_and_two_images_have_no_position_error():
    poses = orbit(4)
    errors = compare_poses({name: poses[name] for name in ("0.jpg", "2.jpg")}, poses)
    assert errors.missing == ("1.jpg", "3.jpg")
    assert np.isnan(errors.position).all()
    assert errors.rotation_deg.max() < 1e-5


def test_poses_of_other_images_cannot_be_compared():
    with pytest.raises(InputError, match="have no image name in common"):
        compare_poses(orbit(2), {"other.jpg": orbit(1)["0.jpg"]})


def test_a_folder_without_a_model_is_no_model(tmp_path):
    with pytest.raises(InputError, match="contains no COLMAP model"):
        read_poses(tmp_path)
