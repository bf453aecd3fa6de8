"""Random scenes and two cameras looking at them: one plane, or walls, boxes, columns and cut-outs at several depths."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .scenes import Array, Camera, Image, TexturedPlane
from .school import ORDINARY, School
from .textures import Crop, Textures

Rng = np.random.Generator

FLAT_SHARE = 0.25  # of scenes with one endless plane under strong perspective, rotation and scale


def random_scene(
    textures: Textures, rng: Rng, size: int, school: School = ORDINARY
) -> tuple[list[TexturedPlane], tuple[Camera, Camera]]:
    """Return a flat or a deep scene; its cameras may share little of the view."""
    scene = flat_scene if rng.random() < FLAT_SHARE else deep_scene
    return scene(textures, rng, size, school)


def flat_scene(
    textures: Textures, rng: Rng, size: int, school: School = ORDINARY
) -> tuple[list[TexturedPlane], tuple[Camera, Camera]]:
    """Return one endless plane and two cameras that differ by a strong homography."""
    crop = _Painter(textures, school).crop(rng)
    aspect = crop.pixels.shape[1] / crop.pixels.shape[0]
    plane = _panel(crop, np.zeros(3), np.diag((aspect, 1.0, 0.0)), endless=True)
    distance = rng.uniform(0.6, 1.1)
    zoom = rng.uniform(0, school.zoom) * rng.choice([-0.5, 0.5])
    cameras = []
    for sign in (1, -1):
        focal = size * rng.uniform(0.8, 1.5)
        away = distance * focal / size * np.exp(sign * zoom + rng.normal(0, 0.1))
        tilt = np.clip(rng.normal(0, 0.3, 2), -0.9, 0.9)
        target = np.append(rng.normal(0, 0.1, 2), 0.0)
        centre = target - _rotation((tilt[0], tilt[1], 0)) @ np.array([0, 0, away])
        cameras.append(_looking_at(centre, target, _roll(rng, strong=0.8), focal, size))
    return [plane], (cameras[0], cameras[1])


def deep_scene(
    textures: Textures, rng: Rng, size: int, school: School = ORDINARY
) -> tuple[list[TexturedPlane], tuple[Camera, Camera]]:
    """Return walls, boxes, columns and cut-outs at several depths, and two cameras among them."""
    painter = _Painter(textures, school)
    depth = rng.uniform(3, 6)
    field = rng.uniform(0.65, 1.3)  # width of the view divided by its depth
    under_sky = bool(school.sky) and rng.random() < school.sky
    planes = _walls(painter, rng, depth, depth * field * 1.3, under_sky=under_sky)
    if under_sky:
        planes += _skies(painter, rng, depth * 6, depth * 6 * field)
    for _ in range(int(rng.integers(0, 6))):
        z = depth * rng.uniform(0.35, 0.85)
        spread = z * field
        centre = np.array([rng.uniform(-0.5, 0.5) * spread, rng.uniform(-0.5, 0.5) * spread, z])
        kind = rng.choice(3, p=[0.4, 0.15, 0.45])
        piece = (_box, _column, _cut_out)[kind]
        planes += piece(painter, rng, centre, spread * rng.uniform(0.15, 0.6))
    target = np.array([0, 0, depth * rng.uniform(0.6, 1.0)])
    if school.thin and rng.random() < school.thin:
        planes += _railing(painter, rng, depth * rng.uniform(0.4, 0.8), field)
    if school.passing and rng.random() < school.passing:
        planes += _passing(painter, rng, depth, field)
    swing = np.interp(rng.random(), [0, 0.6, 1], [0.08, *school.swing])
    reach = school.reach[0] if rng.random() < 0.7 else school.reach[1]
    if school.near and rng.random() < school.near:
        swing, reach = swing / 10, reach / 10
    focal = size / field * np.exp(rng.uniform(-0.25, 0.15))
    cameras = []
    for _ in range(2):
        turn = _rotation((rng.uniform(-swing, swing) * 0.3, rng.uniform(-swing, swing) * 0.6, 0))
        centre = target - turn @ target * np.exp(rng.uniform(-reach, reach))
        look = target + np.array([rng.normal(0, 0.1), rng.normal(0, 0.08), 0]) * depth
        own_focal = focal * np.exp(rng.normal(0, 0.12))
        cameras.append(_looking_at(centre, look, _roll(rng, strong=0.4), own_focal, size))
    return planes, (cameras[0], cameras[1])


@dataclass(frozen=True)
class _Painter:
    """Chooses the textures of a scene."""

    textures: Textures
    school: School

    def crop(self, rng: Rng) -> Crop:
        is_repeated = self.school.repeated and self.textures.repeated and rng.random() < self.school.repeated
        return self.textures.repeated_crop(rng) if is_repeated else self.textures.crop(rng)


def _walls(painter: _Painter, rng: Rng, depth: float, extent: float, *, under_sky: bool = False) -> list[TexturedPlane]:
    """A single wall, flat or with relief, or the corner of a room; sometimes with a floor.

    Walls under a sky end in a skyline.
    """
    middle = np.array([0, 0, depth])

    def wall(frame: Array) -> TexturedPlane:
        skyline = _skyline(rng) if under_sky else None
        return _panel(painter.crop(rng), middle, frame, mask=skyline, endless=not under_sky)

    if rng.random() < 0.5:
        turn = _rotation((rng.normal(0, 0.2), rng.normal(0, 0.35), rng.normal(0, 0.08)))
        side = extent * rng.uniform(0.7, 1.4)
        planes = [wall(turn * side)]
        if rng.random() < 0.5:
            planes += _folded_wall(painter, rng, middle * 0.85, extent)
    else:
        angle = rng.uniform(0.3, 1.2) * rng.choice([-1, 1])
        planes = [wall(_rotation((0, yaw, 0)) * extent) for yaw in (angle, angle - np.sign(angle) * np.pi / 2)]
    if rng.random() < 0.4:
        floor = middle + (0, extent * rng.uniform(0.15, 0.4), -extent / 2)
        planes.append(_panel(painter.crop(rng), floor, _rotation((np.pi / 2, 0, 0)) * extent, endless=True))
    return planes


def _box(painter: _Painter, rng: Rng, centre: Array, side: float) -> list[TexturedPlane]:
    """The three faces of a box that are visible from the origin."""
    turn = _rotation((rng.normal(-0.2, 0.3), rng.uniform(-np.pi / 4, np.pi / 4), 0))
    edges = side * rng.uniform(0.4, 1.0, 3)
    faces = []
    for axis in range(3):
        x, y = (i for i in range(3) if i != axis)
        towards_viewer = -np.sign(turn[:, axis] @ centre) or 1.0
        middle = centre + turn[:, axis] * towards_viewer * edges[axis] / 2
        frame = np.column_stack((turn[:, x] * edges[x], turn[:, y] * edges[y]))
        faces.append(_panel(painter.crop(rng), middle, frame))
    return faces


def _column(painter: _Painter, rng: Rng, centre: Array, side: float) -> list[TexturedPlane]:
    """The front half of a round column, as narrow flat strips."""
    radius, height = side * rng.uniform(0.2, 0.5), side * rng.uniform(1, 3)
    angles = np.linspace(-np.pi / 2, np.pi / 2, 8)
    rim = np.column_stack((np.sin(angles), np.zeros(len(angles)), -np.cos(angles))) * radius
    turn = _rotation((rng.normal(0, 0.1), rng.normal(0, 0.2), rng.normal(0, 0.1)))
    return _strips(painter.crop(rng), rim @ turn.T + centre, height)


def _folded_wall(painter: _Painter, rng: Rng, middle: Array, extent: float) -> list[TexturedPlane]:
    """A wall with relief: bays, pilasters, rock, as upright strips between random depths."""
    folds = int(rng.integers(5, 13))
    across = np.linspace(-0.8, 0.8, folds) + rng.normal(0, 0.3 / folds, folds)
    depth = rng.normal(0, rng.uniform(0.02, 0.1), folds)
    rim = np.column_stack((np.sort(across), np.zeros(folds), depth)) * extent
    turn = _rotation((rng.normal(0, 0.1), rng.normal(0, 0.3), rng.normal(0, 0.05)))
    return _strips(painter.crop(rng), rim @ turn.T + middle, extent * 1.6)


def _strips(crop: Crop, rim: Array, height: float) -> list[TexturedPlane]:
    """A texture bent along a rim (N, 3): flat upright strips between consecutive points."""
    cuts = np.linspace(0, crop.pixels.shape[1], len(rim)).astype(int)
    down = np.array([0, height, 0])
    strips = [crop.columns(int(a), int(b)) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    return [
        TexturedPlane(strip.pixels, left - down / 2, right - left, down, excerpt=strip.excerpt)
        for strip, left, right in zip(strips, rim[:-1], rim[1:], strict=True)
    ]


def _railing(painter: _Painter, rng: Rng, depth: float, field: float) -> list[TexturedPlane]:
    """Thin bars at a depth, evenly spaced over part of the view, upright or lying."""
    crop = painter.crop(rng)
    count, extent = int(rng.integers(2, 9)), depth * field * rng.uniform(0.4, 1.2)
    width = extent / count * rng.uniform(0.05, 0.25)
    along, across = np.array([extent, 0, 0]), np.array([0, extent * rng.uniform(0.5, 1.5), 0])
    if rng.random() < 0.3:
        along, across = across, along
    middle = np.array([*rng.uniform(-0.3, 0.3, 2) * depth * field, depth])
    step = along / count
    edge = step / np.linalg.norm(step) * width
    starts = middle - along / 2 - across / 2 + step * np.arange(count)[:, None]
    return [TexturedPlane(crop.pixels, start, edge, across, excerpt=crop.excerpt) for start in starts]


def _skyline(rng: Rng) -> Image:
    """A mask whose upper edge is a row of roofs: steps, slopes and spires."""
    across = np.sort(rng.uniform(0, 256, int(rng.integers(2, 9))))
    above = rng.uniform(0, 140, len(across))
    if rng.random() < 0.5:  # flat roofs
        across, above = np.repeat(across, 2)[1:], np.repeat(above, 2)[:-1]
    roofs = np.column_stack((np.r_[-1, -1, across, 257, 257], np.r_[257, above[0], above, above[-1], 257]))
    return cv2.fillPoly(np.zeros((256, 256), np.uint8), [roofs.astype(np.int32)], 255)


def _skies(painter: _Painter, rng: Rng, depth: float, extent: float) -> list[TexturedPlane]:
    """A far background for each picture, from small, hence smooth, to large parts of a texture."""
    middle = np.array([0, 0, depth])
    frames = [np.eye(3) * extent * np.exp(rng.uniform(0, 2.5)) for _ in range(2)]
    return [
        replace(_panel(painter.crop(rng), middle, frame, endless=True), only_in=picture)
        for picture, frame in enumerate(frames)
    ]


def _passing(painter: _Painter, rng: Rng, depth: float, field: float) -> list[TexturedPlane]:
    """Things in front that only one picture shows, such as people and cars."""
    planes = []
    for _ in range(int(rng.integers(1, 9))):
        z = depth * rng.uniform(0.35, 0.95)
        centre = np.array([*rng.uniform(-0.5, 0.5, 2) * z * field, z])
        (plane,) = _cut_out(painter, rng, centre, z * field * rng.uniform(0.03, 0.3))
        planes.append(replace(plane, only_in=int(rng.integers(2))))
    return planes


def _cut_out(painter: _Painter, rng: Rng, centre: Array, side: float) -> list[TexturedPlane]:
    """A flat panel, often with the outline of a blob."""
    turn = _rotation((rng.normal(0, 0.4), rng.normal(0, 0.5), rng.normal(0, 0.4)))
    frame = np.column_stack((turn[:, 0] * side * rng.uniform(0.6, 1.5), turn[:, 1] * side))
    return [_panel(painter.crop(rng), centre, frame, mask=_blob(rng) if rng.random() < 0.6 else None)]


def _panel(
    crop: Crop, centre: Array, frame: Array, *, mask: Image | None = None, endless: bool = False
) -> TexturedPlane:
    """A plane given by its centre; the first two columns of `frame` are its edges."""
    edge_x, edge_y = frame[:, 0], frame[:, 1]
    return TexturedPlane(crop.pixels, centre - (edge_x + edge_y) / 2, edge_x, edge_y, mask, endless, crop.excerpt)


def _blob(rng: Rng) -> Image:
    corners = int(rng.integers(6, 12))
    angles, radii = np.sort(rng.uniform(0, 2 * np.pi, corners)), rng.uniform(45, 125, corners)
    outline = 128 + radii[:, None] * np.column_stack((np.cos(angles), np.sin(angles)))
    filled = cv2.fillPoly(np.zeros((256, 256), np.uint8), [outline.astype(np.int32)], 255)
    smooth = cv2.GaussianBlur(filled, (0, 0), rng.uniform(1, 8))
    return ((smooth > 127) * 255).astype(np.uint8)


def _looking_at(centre: Array, target: Array, roll: float, focal: float, size: int) -> Camera:
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross((0.0, 1.0, 0.0), forward)
    right /= np.linalg.norm(right)
    rotation = _rotation((0, 0, roll)) @ np.stack((right, np.cross(forward, right), forward))
    intrinsics = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
    return Camera(intrinsics, rotation, -rotation @ centre, (size, size))


def _roll(rng: Rng, *, strong: float) -> float:
    """A roll angle: most cameras are held upright, one in five is not."""
    return float(rng.normal(0, 0.1) if rng.random() < 0.8 else rng.uniform(-strong, strong))


def _rotation(angles: tuple[float, float, float]) -> Array:
    """The rotation about x, then y, then z, in radians."""
    x, y, z = (cv2.Rodrigues(np.eye(3)[axis] * angle)[0] for axis, angle in enumerate(angles))
    return z @ y @ x
