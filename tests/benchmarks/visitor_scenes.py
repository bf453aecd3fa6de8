"""One building as its visitors photograph it: every photograph by another camera, zoom, place, light and sky."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from romacli.colmap.poses import Pose
from romacli.synthetic.photometric import photograph
from romacli.synthetic.scenes import Camera, TexturedPlane, render_view
from romacli.synthetic.textures import bricks, cells, clutter, facade, noise

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
import render_scene

DOWN = render_scene.DOWN
SIZES = ((640, 480), (640, 426))
SUPERSAMPLING = 2

Texture = Callable[[np.random.Generator], np.ndarray]


def write_photographs(
    folder: Path, seed: int, count: int, swing_deg: float
) -> tuple[dict[str, Pose], dict[str, float]]:
    """Write JPEG files without EXIF data, and return their true poses and focal lengths in px."""
    rng = np.random.default_rng([seed, 31])
    planes, truth = building(rng), {}
    cameras = [visitor(rng, swing_deg) for _ in range(count)]
    for index, camera in enumerate(cameras):
        around = [sky(rng), *people(rng, -camera.R.T @ camera.t)]
        large = np.diag([SUPERSAMPLING, SUPERSAMPLING, 1.0]) @ camera.K
        width, height = (side * SUPERSAMPLING for side in camera.size)
        rgb = render_view([*planes, *around], Camera(large, camera.R, camera.t, (width, height))).rgb
        rgb = cv2.resize(rgb, camera.size, interpolation=cv2.INTER_AREA)
        rgb = photograph(rgb, rng, at_night=rng.random() < 0.08, graded=rng.random() < 0.4)
        name = f"{index:03}.jpg"
        cv2.imwrite(str(folder / name), rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        truth[name] = Pose(camera.R, camera.t)
    return truth, {name: float(camera.K[0, 0]) for name, camera in zip(truth, cameras, strict=True)}


def visitor(rng: np.random.Generator, swing_deg: float) -> Camera:
    """A camera 13 to 34 m away, up to `swing_deg` to either side, that shows 9 to 26 m of the building."""
    angle, away = np.radians(rng.uniform(-swing_deg, swing_deg)), rng.uniform(13, 34)
    centre = np.array([away * np.sin(angle) + rng.normal(), -rng.uniform(1.5, 2.2), -away * np.cos(angle)])
    target = np.array([rng.uniform(-5, 5), -rng.uniform(3.5, 8), 0])
    size = SIZES[int(rng.random() < 0.4)]
    if rng.random() < 0.35:
        size = size[::-1]
    focal = float(np.clip(size[0] * away / rng.uniform(9, 26), 0.65 * max(size), 3.2 * max(size)))
    rotation = render_scene.looking_at(target, centre)
    K = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1.0]])
    return Camera(K, rotation, -rotation @ centre, size)


def building(rng: np.random.Generator) -> list[TexturedPlane]:
    """A front 16 m wide with a portal between two equal towers, equal buttresses, paving, and houses beside it."""
    tone = rng.uniform(110, 180, 3)

    def stone(kind: Texture) -> np.ndarray:
        return render_scene.blend(kind(rng), noise(rng), 0.35, tone=tone + rng.normal(0, 8, 3))

    planes = [face(stone(facade), (-8, 0), (8, 0), 11)]
    tower, buttress = [stone(facade) for _ in range(2)], [stone(bricks)] * 2
    for left in (-10.5, 7.5):
        planes += block(tower, left, 3.0, depths=(-1.5, 2.0), height=17)
    for left in (-6.4, -4.2, 3.6, 5.8):
        planes += block(buttress, left, 0.8, depths=(-0.7, 0.0), height=9)
    planes += block([stone(clutter), stone(bricks)], -2.2, 4.4, depths=(-1.2, 0.0), height=5)
    for _ in range(14):
        left, low = rng.uniform([-7.5, 5.5], [6, 10])
        width, height = rng.uniform([0.6, 0.5], [1.6, 1.3])
        near = -rng.uniform(0.1, 0.6)
        planes.append(face(render_scene.painted(rng), (left, near), (left + width, near), low + height, low))
    planes += paving(stone)
    for ends in (((-40, 9), (-16, 6)), ((15, 7), (42, 4))):
        planes.append(face(stone(facade), *ends, rng.uniform(7, 11)))
    return planes


def paving(stone: Callable[[Texture], np.ndarray]) -> list[TexturedPlane]:
    kinds = ((cells, bricks), (bricks, cells))
    ground = np.vstack([np.hstack([stone(kind) for kind in row]) for row in kinds])
    tiles, step = [], 6.0
    for row in range(-7, 1):
        for column in range(-5, 5):
            part = ground[row % 4 * 256 :, column % 4 * 256 :][:256, :256]
            corner = np.array([column * step, 0.02, (row + 1) * step])
            edges = np.array([1.01 * step, 0, 0]), np.array([0, 0, -1.01 * step])
            tiles.append(render_scene.lit(np.ascontiguousarray(part), corner, *edges, -DOWN))
    return tiles


def block(
    pictures: Sequence[np.ndarray], left: float, width: float, *, depths: tuple[float, float], height: float
) -> list[TexturedPlane]:
    """Front and sides of a block, with one picture for the front and one for the sides."""
    (near, far), right = depths, left + width
    ends = [((left, near), (right, near)), ((right, near), (right, far)), ((left, far), (left, near))]
    return [face(pictures[int(index > 0)], *both, height) for index, both in enumerate(ends)]


def face(
    picture: np.ndarray, left: tuple[float, float], right: tuple[float, float], top: float, bottom: float = 0.0
) -> TexturedPlane:
    """An upright plane between two (x, z), seen from its front."""
    one, other = (np.array([x, 0.0, z]) for x, z in (left, right))
    out = np.cross(DOWN, other - one)
    return render_scene.lit(picture, one - DOWN * top, other - one, DOWN * (top - bottom), out / np.linalg.norm(out))


def sky(rng: np.random.Generator) -> TexturedPlane:
    """Clear or clouded, far behind the building."""
    low, high = rng.uniform(120, 255, (2, 1, 1, 3))
    picture = np.linspace(high, low, 512)[:, 0] * np.ones((1, 512, 1))
    if rng.random() < 0.67:
        picture = 0.7 * picture + 0.3 * noise(rng)[:512, :512]
    return face(np.clip(picture, 0, 255).astype(np.uint8), (-150, 90), (150, 90), 120, -10)


def people(rng: np.random.Generator, camera: np.ndarray) -> list[TexturedPlane]:
    """Up to four passers-by between a camera (3,) and the building, in another place in every photograph."""
    outline = cv2.ellipse(np.zeros((256, 128), np.uint8), (64, 150), (46, 106), 0, 0, 360, 255, -1)
    outline = np.asarray(cv2.circle(outline, (64, 34), 30, 255, -1), np.uint8)
    found = []
    for _ in range(int(rng.integers(5))):
        share, tall = rng.uniform(0.25, 0.6), rng.uniform(1.5, 1.9)
        corner = np.array([camera[0] * (1 - share) + rng.uniform(-4.5, 4.5), -tall, camera[2] * (1 - share)])
        picture = cv2.resize(clutter(rng, 256), (128, 256))
        edges = np.array([0.55, 0, 0]), np.array([0, tall, 0])
        found.append(render_scene.lit(picture, corner, *edges, np.array([0, 0, -1.0]), mask=outline))
    return found
