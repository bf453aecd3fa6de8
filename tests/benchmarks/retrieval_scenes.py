"""Photographs with known overlaps: rendered walks there and back, and folders with a COLMAP model.

The overlap of two rendered views is exact: the mean share of each that the other shows. That of two photographs is the
number of model points that both see, relative to the points of the one that sees fewer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from romacli.images.decode import read_image
from romacli.mapping.views import read_points_seen
from romacli.synthetic.scenes import Camera, TexturedPlane, render_view, warp_between

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
import render_scene

SIZE = (320, 240)
FOCAL_PX = 280.0
# Overlaps are computed at this fraction of the image resolution.
OVERLAP_SCALE = 0.25


@dataclass(frozen=True)
class Collection:
    """Images in the order they were taken. overlap: (N, N) in [0, 1], symmetric, 0 on the diagonal."""

    names: tuple[str, ...]
    images: tuple[np.ndarray, ...]
    overlap: np.ndarray


def joined(collections: list[Collection]) -> Collection:
    """Several collections as one folder; different collections do not overlap."""
    names = tuple(f"{part}/{name}" for part, item in enumerate(collections) for name in item.names)
    overlap = np.zeros((len(names), len(names)))
    start = 0
    for item in collections:
        stop = start + len(item.names)
        overlap[start:stop, start:stop] = item.overlap
        start = stop
    return Collection(names, tuple(image for item in collections for image in item.images), overlap)


def rendered_walk(seed: int, views: int) -> Collection:
    """A walk along an arc around its own court and back, at varying distance, looking around."""
    rng = np.random.default_rng([seed, 7])
    planes = render_scene.court(np.random.default_rng(seed))
    cameras = cameras_of_walk(rng, views)
    overlap = overlaps(planes, cameras)
    seen = [render_view(planes, camera) for camera in cameras]
    images = [np.clip(view.rgb * rng.uniform(0.8, 1.2) + rng.normal(0, 3, view.rgb.shape), 0, 255) for view in seen]
    names = tuple(f"{index:03}.png" for index in range(views))
    return Collection(names, tuple(image.astype(np.uint8) for image in images), overlap)


def photographs(folder: Path, model: Path) -> Collection:
    """The photographs of a folder that are registered in a model."""
    seen = read_points_seen(model)
    names = tuple(sorted(seen))
    overlap = np.zeros((len(names), len(names)))
    for i, first in enumerate(names):
        for j, second in enumerate(names):
            if i != j:
                shared = len(np.intersect1d(seen[first], seen[second]))
                overlap[i, j] = shared / max(1, min(len(set(seen[first])), len(set(seen[second]))))
    return Collection(names, tuple(read_image(folder / name) for name in names), overlap)


def overlaps(planes: Sequence[TexturedPlane], cameras: Sequence[Camera]) -> np.ndarray:
    """The overlap (N, N) of every two views, exact except for the reduced resolution."""
    small = [scaled(camera, OVERLAP_SCALE) for camera in cameras]
    shown = [render_view(planes, camera) for camera in small]
    overlap = np.zeros((len(small), len(small)))
    for i, j in combinations(range(len(small)), 2):
        shares = [warp_between(small[a], shown[a], small[b], shown[b])[1].mean() for a, b in ((i, j), (j, i))]
        overlap[i, j] = overlap[j, i] = np.mean(shares)
    return overlap


def scaled(camera: Camera, scale: float) -> Camera:
    """The camera with its resolution scaled."""
    width, height = camera.size
    return Camera(np.diag([scale, scale, 1]) @ camera.K, camera.R, camera.t, (int(width * scale), int(height * scale)))


def cameras_of_walk(rng: np.random.Generator, views: int) -> list[Camera]:
    """Cameras along an arc around a court and back, at varying distance, looking around."""
    half = views // 2
    there, back = np.linspace(-75, 75, half), np.linspace(75, -75, views - half)
    return [_camera(rng, turn, outward) for turns, outward in ((there, False), (back, True)) for turn in turns]


def _camera(rng: np.random.Generator, turn_deg: float, outward: bool) -> Camera:
    angle = np.radians(turn_deg + rng.normal(0, 2))
    radius = rng.uniform(4.2, 5.0) if outward else rng.uniform(2.6, 3.4)
    centre = np.array([radius * np.sin(angle), -rng.uniform(1.2, 2.0), -radius * np.cos(angle)])
    rotation = render_scene.looking_at(np.array([0.0, -0.95, 0.0]) + rng.normal(0, 0.5, 3), centre)
    K = np.array([[FOCAL_PX, 0, SIZE[0] / 2], [0, FOCAL_PX, SIZE[1] / 2], [0, 0, 1.0]])
    return Camera(K, rotation, -rotation @ centre, SIZE)
