"""Render the example scene: a court with a tower, crates and walls, photographed along an arc.

    python examples/render_scene.py examples/scene

writes `images/*.jpg` and their true cameras as a COLMAP text model, `truth/`. All textures are generated, so nobody
else has rights in the photographs. The same seed gives the same photographs. World axes are x right, y down, z away
from the middle of the arc; the unit is a metre.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from romacli.synthetic.scenes import Camera, TexturedPlane, render_view
from romacli.synthetic.textures import bricks, cells, clutter, facade, noise

Array = NDArray[np.float64]
Image = NDArray[np.uint8]
Rng = np.random.Generator

SEED = 1
SIZE = (640, 480)
FOCAL_PX = 560.0
SUPERSAMPLING = 2
JPEG_QUALITY = 92
NUM_VIEWS = 15
ARC_DEG = 119.0  # 8.5 degrees between photographs
RADIUS = 4.6
TARGET = np.array([0.0, -0.95, 0.0])
SUN = np.array([-0.5, -0.75, -0.45]) / np.linalg.norm([-0.5, -0.75, -0.45])
SUNLIGHT, SHADE = 1.15, 0.7  # light on surfaces facing the sun, and on those facing away
SATURATION = 0.35  # random palettes are more saturated than real houses
DOWN = np.array([0.0, 1.0, 0.0])
OVERLAP = 1.01  # of paving tiles, so that there are no gaps between them


def court(rng: Rng) -> list[TexturedPlane]:
    """All objects in the court, lit by the sun."""
    return [
        *floor(rng),
        *surrounding_wall(rng),
        *tower(rng, centre=(-0.15, 0.25), radius=0.62, height=2.1),
        *crate(rng, centre=(1.15, -0.35), size=(0.9, 0.85, 0.75), turn_deg=24),
        *crate(rng, centre=(1.2, -0.3), size=(0.5, 0.4, 0.45), turn_deg=-12, height=0.85),
        *crate(rng, centre=(-1.3, -0.45), size=(0.6, 1.45, 0.6), turn_deg=-31),
        *crate(rng, centre=(-0.2, -1.15), size=(1.5, 0.28, 0.6), turn_deg=8),
        *crate(rng, centre=(0.55, 1.6), size=(1.3, 1.1, 0.7), turn_deg=-8),
        board(rng, foot=(-0.95, -1.35), width=0.75, length=1.25, turn_deg=-40, slope_deg=52),
        board(rng, foot=(0.75, -1.35), width=0.8, length=0.95, turn_deg=15, slope_deg=38),
    ]


def floor(rng: Rng, half: float = 6.0, tiles: int = 8) -> Iterator[TexturedPlane]:
    """Four kinds of paving as square tiles, so that those behind a camera can be skipped."""
    side = tiles * 128
    kinds: tuple[Callable[..., Image], ...] = (cells, bricks, bricks, cells)
    quarters = [blend(kind(rng, side), noise(rng, side), 0.45, tone=(150, 142, 130)) for kind in kinds]
    paving = np.vstack((np.hstack(quarters[:2]), np.hstack(quarters[2:])))
    step = 2 * half / tiles
    for row, column in np.ndindex(tiles, tiles):
        part = np.ascontiguousarray(paving[row * 256 : (row + 1) * 256, column * 256 : (column + 1) * 256])
        corner = np.array([-half + column * step, 0, half - row * step])
        edges = np.array([step, 0, 0]) * OVERLAP, np.array([0, 0, -step]) * OVERLAP
        yield lit(part, corner, *edges, -DOWN)


def surrounding_wall(rng: Rng, radius: float = 4.3, span_deg: float = 222, panels: int = 11) -> Iterator[TexturedPlane]:
    """Houses and walls of different heights in a horseshoe, open towards the cameras."""
    corners = np.radians(np.linspace(-span_deg / 2, span_deg / 2, panels + 1))
    rim = np.column_stack((np.sin(corners), np.zeros(panels + 1), np.cos(corners))) * radius
    kinds: tuple[Callable[..., Image], ...] = (facade, bricks, facade, clutter)
    for index, (left, right) in enumerate(zip(rim[:-1], rim[1:], strict=True)):
        height = rng.uniform(2.6, 3.9)
        picture = blend(kinds[index % len(kinds)](rng), noise(rng), 0.35, tone=rng.uniform(95, 190, 3))
        yield lit(picture, left - DOWN * height, right - left, DOWN * height, -(left + right))


def tower(
    rng: Rng, *, centre: tuple[float, float], radius: float, height: float, strips: int = 28
) -> Iterator[TexturedPlane]:
    """A round tower with a flat top, built from narrow vertical strips."""
    masonry = blend(bricks(rng, 1536), clutter(rng, 1536), 0.5, tone=(170, 130, 100))[:768]
    angles = np.linspace(0, 2 * np.pi, strips + 1)
    outward = np.column_stack((np.sin(angles), np.zeros(strips + 1), -np.cos(angles)))
    rim = outward * radius + (centre[0], 0, centre[1])
    cuts = np.linspace(0, masonry.shape[1], strips + 1).astype(int)
    for i in range(strips):
        strip = np.ascontiguousarray(masonry[:, cuts[i] : cuts[i + 1]])
        yield lit(strip, rim[i] - DOWN * height, rim[i + 1] - rim[i], DOWN * height, outward[i] + outward[i + 1])
    corner = np.array([centre[0] - radius, -height, centre[1] - radius])
    disc = cv2.circle(np.zeros((256, 256), np.uint8), (128, 128), 127, 255, -1)
    yield lit(cells(rng, 384), corner, np.array([2 * radius, 0, 0]), np.array([0, 0, 2 * radius]), -DOWN, mask=disc)


def crate(
    rng: Rng,
    *,
    centre: tuple[float, float],
    size: tuple[float, float, float],
    turn_deg: float,
    height: float = 0.0,
) -> Iterator[TexturedPlane]:
    """A box `height` above the floor: four sides and a lid. `size` is its width, height and depth."""
    turn = rotation_about_down(turn_deg)
    width, tall, deep = size
    top = np.array([centre[0], -height - tall, centre[1]])
    x, z = turn[:, 0] * width / 2, turn[:, 2] * deep / 2
    for along, outward in ((x, -z), (z, x), (-x, z), (-z, -x)):
        yield lit(painted(rng), top + outward - along, 2 * along, DOWN * tall, outward)
    yield lit(painted(rng), top - x - z, 2 * x, 2 * z, -DOWN)


def board(
    rng: Rng, *, foot: tuple[float, float], width: float, length: float, turn_deg: float, slope_deg: float
) -> TexturedPlane:
    """A slanted board: its lower edge is on the floor at `foot`, and it leans away from the cameras."""
    turn, slope = rotation_about_down(turn_deg), np.radians(slope_deg)
    along = turn[:, 0] * width
    up = (turn[:, 2] * np.cos(slope) - DOWN * np.sin(slope)) * length
    corner = np.array([foot[0], 0, foot[1]]) - along / 2 + up
    return lit(painted(rng), corner, along, -up, np.cross(along, up))


def painted(rng: Rng) -> Image:
    """The texture of crates and boards: signs, mosaics or planks, weathered."""
    kind: Callable[..., Image] = (clutter, cells, facade, clutter)[int(rng.integers(4))]
    return blend(kind(rng, 512), noise(rng, 512), 0.3, tone=rng.uniform(80, 200, 3))


def blend(picture: Image, over: Image, share: float, *, tone: tuple[float, ...] | Array) -> Image:
    """A blend of two images with half the saturation, brightened and shifted towards one tone."""
    mixed = cv2.addWeighted(picture, 1 - share, over, share, 0).astype(np.float32)
    grey = mixed.mean(axis=-1, keepdims=True)
    calm = grey + SATURATION * (mixed - grey)
    return np.clip(0.95 * calm + 0.25 * np.asarray(tone, np.float32), 0, 255).astype(np.uint8)


def lit(
    picture: Image, corner: Array, edge_x: Array, edge_y: Array, outward: Array, *, mask: Image | None = None
) -> TexturedPlane:
    """A textured plane with sunlight applied; `outward` is its outward normal."""
    light = SHADE + (SUNLIGHT - SHADE) * max(0.0, float(SUN @ outward) / float(np.linalg.norm(outward)))
    return TexturedPlane(np.clip(picture * light, 0, 255).astype(np.uint8), corner, edge_x, edge_y, mask)


def rotation_about_down(angle_deg: float) -> Array:
    return cv2.Rodrigues(DOWN * np.radians(angle_deg))[0]


def cameras_on_arc(rng: Rng) -> list[Camera]:
    """Hand-held cameras on the arc: radius, height and aim vary slightly."""
    width, height = SIZE
    K = np.array([[FOCAL_PX, 0, width / 2], [0, FOCAL_PX, height / 2], [0, 0, 1.0]])
    cameras = []
    for angle in np.radians(np.linspace(-ARC_DEG / 2, ARC_DEG / 2, NUM_VIEWS)):
        radius = RADIUS * rng.uniform(0.92, 1.06)
        centre = np.array([radius * np.sin(angle), -rng.uniform(1.35, 1.95), -radius * np.cos(angle)])
        R = looking_at(TARGET + rng.normal(0, 0.07, 3), centre)
        cameras.append(Camera(K, R, -R @ centre, SIZE))
    return cameras


def looking_at(target: Array, centre: Array) -> Array:
    """Rotation from world to camera of an upright camera at `centre`."""
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross(DOWN, forward)
    right /= np.linalg.norm(right)
    return np.stack((right, np.cross(forward, right), forward))


def take_photograph(planes: list[TexturedPlane], camera: Camera, rng: Rng) -> Image:
    """The court as seen by a camera with slight noise and vignetting, (H, W, 3) RGB."""
    scale = np.diag([SUPERSAMPLING, SUPERSAMPLING, 1.0])
    size = (camera.size[0] * SUPERSAMPLING, camera.size[1] * SUPERSAMPLING)
    fine = Camera(scale @ camera.K, camera.R, camera.t, size)
    rgb, plane_index, _ = render_view(planes, fine)
    rays = viewing_rays(fine)
    picture = np.where(plane_index[..., None] >= 0, rgb, sky(rays @ fine.R[:, 1]))
    picture = cv2.resize(picture.astype(np.float32), camera.size, interpolation=cv2.INTER_AREA)
    falloff = cv2.resize(rays[..., 2] ** 1.5, camera.size, interpolation=cv2.INTER_AREA)
    picture = picture * falloff[..., None] * rng.uniform(0.96, 1.06) + rng.normal(0, 1.5, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def viewing_rays(camera: Camera) -> NDArray[np.float32]:
    """(H, W, 3) unit viewing directions in the camera frame."""
    width, height = camera.size
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack((x, y, np.ones_like(x)), axis=-1) @ np.linalg.inv(camera.K).T
    return (rays / np.linalg.norm(rays, axis=-1, keepdims=True)).astype(np.float32)


def sky(down: Array) -> Array:
    """(..., 3) colours of a clear sky; `down` is the downward part of the viewing direction."""
    height = np.clip(-down, 0, 1)[..., None]
    return np.array([205.0, 218, 232]) + height * (np.array([95.0, 140, 200]) - (205.0, 218, 232)) * 1.5


def write_truth(folder: Path, cameras: dict[str, Camera]) -> None:
    """Write the true cameras as a COLMAP text model without points."""
    folder.mkdir(parents=True, exist_ok=True)
    K = next(iter(cameras.values())).K
    intrinsics = " ".join(f"{value:.10g}" for value in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
    (folder / "cameras.txt").write_text(f"1 PINHOLE {SIZE[0]} {SIZE[1]} {intrinsics}\n", encoding="utf-8")
    lines = []
    for image_id, (name, camera) in enumerate(cameras.items(), start=1):
        pose = " ".join(f"{value:.10f}" for value in (*quaternion(camera.R), *camera.t))
        lines.append(f"{image_id} {pose} 1 {name}\n\n")  # the empty line stands for the keypoints
    (folder / "images.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "points3D.txt").write_text("", encoding="utf-8")


def quaternion(rotation: Array) -> Array:
    """w, x, y, z of a rotation matrix."""
    axis_angle = cv2.Rodrigues(rotation)[0].ravel()
    angle = np.linalg.norm(axis_angle)
    return np.concatenate(([np.cos(angle / 2)], np.sinc(angle / 2 / np.pi) / 2 * axis_angle))


def main() -> None:
    parser = argparse.ArgumentParser(description="Render the example scene with its true cameras.")
    parser.add_argument("folder", type=Path, help="where images/ and truth/ are written")
    folder = parser.parse_args().folder
    scene_rng, camera_rng, sensor_rng = (np.random.default_rng([SEED, part]) for part in range(3))
    planes = court(scene_rng)
    cameras = {f"court_{i:02}.jpg": camera for i, camera in enumerate(cameras_on_arc(camera_rng), start=1)}
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name, camera in cameras.items():
        picture = cv2.cvtColor(take_photograph(planes, camera, sensor_rng), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / "images" / name), picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    write_truth(folder / "truth", cameras)


if __name__ == "__main__":
    main()
