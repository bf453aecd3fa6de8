"""Rendered photographs of the example's court, and of a wall with relief, by cameras of any focal length."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from romacli.synthetic.scenes import Camera, TexturedPlane, render_view
from romacli.synthetic.textures import bricks, clutter, facade

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
import render_scene

SIZE = (640, 480)
TOWARDS_CAMERAS = np.array([0.0, 0.0, -1.0])


def write_photographs(folder: Path, motion: str, factor: float, seed: int, views: int) -> None:
    """`views` JPEG files of a motion, their focal length `factor` times the longer side, without EXIF data.

    Cameras are far enough away that the scene fills the view, and look around by a fortieth of it.
    """
    rng, away = np.random.default_rng([seed, 11]), max(1.0, factor)
    planes = wall(rng, away) if motion == "relief" else render_scene.court(np.random.default_rng(seed))
    focal = factor * max(SIZE)
    K = np.array([[focal, 0, SIZE[0] / 2], [0, focal, SIZE[1] / 2], [0, 0, 1.0]])
    for index in range(views):
        centre, turn_deg = _place(motion, index / (views - 1), away, rng)
        look = rng.normal(0, 1.2 / away, 3) + [0, turn_deg, 0]
        rotation = Rotation.from_euler("xyz", look, degrees=True).as_matrix()
        rgb = render_view(planes, Camera(K, rotation, -rotation @ centre, SIZE)).rgb
        picture = np.clip(rgb + rng.normal(0, 2, rgb.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index:03}.jpg"), picture[:, :, ::-1])


def wall(rng: np.random.Generator, away: float) -> list[TexturedPlane]:
    """A wall 14 m wide, with panels in front of it by up to a tenth of the cameras' distance."""
    planes = [_upright(facade(rng), np.array([-7.0, -5.0, 0.0]), 14.0, 10.0)]
    for _ in range(60):
        corner = np.append(rng.uniform([-6.5, -4.5], [5.5, 3.5]), -away * rng.uniform(0.02, 0.4))
        picture = bricks(rng) if rng.random() < 0.5 else clutter(rng)
        planes.append(_upright(picture, corner, rng.uniform(0.5, 1.5), rng.uniform(0.5, 1.2)))
    return planes


def _upright(picture: np.ndarray, corner: np.ndarray, width: float, height: float) -> TexturedPlane:
    edges = np.array([width, 0, 0]), np.array([0, height, 0])
    return render_scene.lit(picture, corner, *edges, TOWARDS_CAMERAS)


def _place(motion: str, along: float, away: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The position of a camera after a share of its path, and its rotation about the vertical in degrees."""
    if motion == "orbit":
        angle, radius = 90 * (along - 0.5), 4.4 * away * rng.uniform(0.9, 1.1)
        x, z = np.sin(np.deg2rad(angle)) * radius, -np.cos(np.deg2rad(angle)) * radius
        return np.array([x, -0.95 + away * rng.normal(-0.2, 0.15), z]), angle
    if motion == "forward":
        return np.array([0.0, -1.3, -(5.4 - 2.4 * along) * away]), 0.0
    if motion == "turn":
        return np.array([0.0, -1.3, -4.0]), 40 * (along - 0.5) / away
    wobble = away * rng.normal(0, 0.15, 2)
    height = -1.3 if motion == "strip" else 0.0
    return np.array([2.2 * away * (along - 0.5), height + wobble[0], -4.2 * away + wobble[1]]), 0.0
