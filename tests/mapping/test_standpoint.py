"""Photographs of a camera that only rotates are distinguished from those of a plane by a camera that moves."""

from __future__ import annotations

import numpy as np
import pytest

from romacli.geometry.rotation import PlanarPair, are_from_one_place, planar_pair

SIZE = (640, 480)


def rotation(x: float, y: float, z: float) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", [x, y, z], degrees=True).as_matrix()


def views(
    poses: list[tuple[np.ndarray, np.ndarray]], *, focal: float, points: np.ndarray, noise_px: float = 0.5
) -> list[PlanarPair | None]:
    """Every view of the points paired with every other."""
    rng = np.random.default_rng(0)
    K = np.array([[focal, 0, SIZE[0] / 2], [0, focal, SIZE[1] / 2], [0, 0, 1]])
    seen = []
    for turn, place in poses:
        x = (points - place) @ turn.T @ K.T
        seen.append(x[:, :2] / x[:, 2:] + rng.normal(0, noise_px, (len(points), 2)))
    return [
        planar_pair(seen[i], seen[j], SIZE, SIZE, max_error_px=4.0)
        for i in range(len(poses))
        for j in range(i + 1, len(poses))
    ]


def scattered(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform([-1.5, -1, 4], [1.5, 1, 9], (400, 3))


def on_a_plane() -> np.ndarray:
    points = scattered()
    points[:, 2] = 5 + 0.2 * points[:, 0]
    return points


@pytest.mark.parametrize("focal", [400.0, 900.0, 1600.0])
def test_a_camera_that_turns_is_recognised(focal: float) -> None:
    poses = [(rotation(0.5 * i, 3 * i, i), np.zeros(3)) for i in range(5)]
    assert are_from_one_place(views(poses, focal=focal, points=scattered()))


@pytest.mark.parametrize("step", [[0.3, 0, 0], [0, 0, 0.4], [0.2, 0.1, 0.1]])
def test_a_plane_before_a_camera_that_moves_is_not(step: list[float]) -> None:
    poses = [(rotation(0, i, 0), i * np.array(step)) for i in range(5)]
    assert not are_from_one_place(views(poses, focal=700, points=on_a_plane()))


def test_depth_seen_from_places_apart_is_not() -> None:
    poses = [(rotation(0, 2 * i, 0), np.array([0.3 * i, 0, 0])) for i in range(4)]
    assert not are_from_one_place(views(poses, focal=700, points=scattered()))


def test_nothing_is_said_without_pairs() -> None:
    assert not are_from_one_place([])
    assert not are_from_one_place([None, None])
