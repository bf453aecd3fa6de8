"""Photographs around a statue, along a street and in a room, by one camera or each by a camera of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from lookalike_scenes import corners
from PIL import Image
from PIL.ExifTags import IFD, Base
from visitor_scenes import SIZES, SUPERSAMPLING, face, render_scene

from romacli.colmap.poses import Pose
from romacli.synthetic.photometric import photograph
from romacli.synthetic.scenes import Camera, TexturedPlane, render_view
from romacli.synthetic.textures import bricks, cells, clutter, facade, noise

Array = np.ndarray
Rng = np.random.Generator
DOWN = render_scene.DOWN
CAMERAS = ("known", "one", "own")
# A clear sky at the horizon and overhead.
CLEAR = np.array([205.0, 218, 232]), np.array([95.0, 140, 200])
FILM_MM = float(np.hypot(36, 24))


class Stand(NamedTuple):
    """Where a photograph is taken and what it is directed at, (3,) each."""

    centre: Array
    target: Array


@dataclass(frozen=True)
class Place:
    """focal_mm: the usual focal length, as an equivalent on 35 mm film. zooms: by which factors others differ from it.
    passers_by: how many are before a camera at most, where all else changes too."""

    planes: list[TexturedPlane]
    stands: list[Stand]
    focal_mm: float
    zooms: tuple[float, float]
    passers_by: int


def write_photographs(folder: Path, name: str, cameras: str, seed: int) -> tuple[dict[str, Pose], dict[str, float]]:
    """Write JPEG files, and return their true poses and focal lengths in px.

    cameras: known is one camera with EXIF data; one lacks these; own is another camera, zoom and light every time.
    """
    place = PLACES[name](np.random.default_rng([seed, *name.encode()]))
    truth, focals = {}, {}
    for index, stand in enumerate(place.stands):
        rng = np.random.default_rng([seed, 37, index])
        camera = camera_at(stand, place, cameras, rng)
        if cameras == "own":
            rgb = _rendered([*place.planes, *_passers_by(rng, stand, place.passers_by)], camera, *_sky(rng))
            rgb = photograph(rgb, rng, at_night=rng.random() < 0.05, graded=rng.random() < 0.4)
        else:
            rgb = _rendered(place.planes, camera, *CLEAR)
            noisy = rgb * rng.uniform(0.92, 1.08) + rng.normal(0, 2, rgb.shape)
            rgb = np.clip(noisy, 0, 255).astype(np.uint8)
        file = f"{index:03}.jpg"
        exif = _exif(place.focal_mm) if cameras == "known" else Image.Exif()
        Image.fromarray(rgb).save(folder / file, quality=90, exif=exif)
        truth[file], focals[file] = Pose(camera.R, camera.t), float(camera.K[0, 0])
    return truth, focals


def camera_at(stand: Stand, place: Place, cameras: str, rng: Rng) -> Camera:
    size, zoom = SIZES[0], 1.0
    if cameras == "own":
        size, zoom = SIZES[int(rng.random() < 0.4)], float(np.exp(rng.uniform(*np.log(place.zooms))))
        if rng.random() < 0.3:
            size = size[::-1]
    focal = zoom * place.focal_mm / FILM_MM * float(np.hypot(*size))
    rotation = render_scene.looking_at(stand.target, stand.centre)
    K = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1.0]])
    return Camera(K, rotation, -rotation @ stand.centre, size)


def _rendered(planes: list[TexturedPlane], camera: Camera, low: Array, high: Array) -> Array:
    """(H, W, 3) uint8 RGB before a sky of two colours (3,), at the horizon and overhead."""
    large = np.diag([SUPERSAMPLING, SUPERSAMPLING, 1.0]) @ camera.K
    fine = Camera(large, camera.R, camera.t, (camera.size[0] * SUPERSAMPLING, camera.size[1] * SUPERSAMPLING))
    view = render_view(planes, fine)
    height = np.clip(-render_scene.viewing_rays(fine) @ fine.R[:, 1], 0, 1)[..., None]
    rgb = np.where(view.plane_index[..., None] >= 0, view.rgb, low + height * (high - low))
    return cv2.resize(rgb.astype(np.uint8), camera.size, interpolation=cv2.INTER_AREA)


def _sky(rng: Rng) -> tuple[Array, Array]:
    """Anything between clear and grey."""
    bright, dull = rng.uniform(0.75, 1.05), rng.uniform(0, 1)
    low, high = (dull * one.mean() + (1 - dull) * one for one in CLEAR)
    return bright * low, bright * (high + dull * rng.uniform(0, 1) * (low.mean() - high.mean()))


def _exif(focal_mm: float) -> Image.Exif:
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Model] = "Benchmark", "One"
    exif.get_ifd(IFD.Exif)[Base.FocalLengthIn35mmFilm] = int(focal_mm)
    return exif


def _passers_by(rng: Rng, stand: Stand, most: int) -> list[TexturedPlane]:
    """People between a camera and what it is directed at, standing on the ground and facing the camera."""
    outline = cv2.ellipse(np.zeros((256, 128), np.uint8), (64, 150), (46, 106), 0, 0, 360, 255, -1)
    outline = np.asarray(cv2.circle(outline, (64, 34), 30, 255, -1), np.uint8)
    ahead = (stand.target - stand.centre) * (1, 0, 1)
    along = np.cross(DOWN, ahead / np.linalg.norm(ahead))
    found = []
    for _ in range(int(rng.integers(most + 1))):
        tall, foot = rng.uniform(1.5, 1.9), stand.centre * (1, 0, 1) + rng.uniform(0.4, 0.8) * ahead
        corner = foot + rng.uniform(-2.5, 2.5) * along - tall * DOWN
        found.append(
            render_scene.lit(
                cv2.resize(clutter(rng, 256), (128, 256)), corner, 0.55 * along, tall * DOWN, -ahead, mask=outline
            )
        )
    return found


def statue(is_alike: bool) -> Callable[[Rng], Place]:
    """A statue on its pedestal in a square, from all around; alike is one that looks nearly the same from 4 sides."""

    def make(rng: Rng) -> Place:
        fold, tone = 4 if is_alike else 1, rng.uniform(110, 170, 3)
        planes = [*_square(rng), *_pedestal(rng, fold, tone)]
        low = 1.3
        for radius, height in ((0.5, 0.35), (0.34, 0.9), (0.42, 0.55), (0.5, 0.3), (0.16, 0.15), (0.24, 0.42)):
            radius, height = radius * rng.uniform(0.9, 1.1), height * rng.uniform(0.9, 1.1)
            planes += _drum(rng, radius, low, height, fold, tone)
            low += height
        for _ in range(1 if is_alike else 6):
            angle, up, size = rng.uniform(0, 2 * np.pi), rng.uniform(1.4, 3.3), rng.uniform(0.15, 0.6, 3)
            middle = (0.5 * np.sin(angle), -0.5 * np.cos(angle))
            planes += _box(rng, centre=middle, size=tuple(size), turn_deg=rng.uniform(0, 90), height=up)
        stands = []
        for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False) + rng.normal(0, 0.03, 24):
            away = rng.uniform(4.6, 6.4)
            centre = np.array([away * np.sin(angle), -rng.uniform(1.4, 1.9), -away * np.cos(angle)])
            stands.append(Stand(centre, np.array([0, -1.9, 0]) + rng.normal(0, 0.2, 3)))
        return Place(planes, stands, 30, (0.8, 1.5), 2)

    return make


def _square(rng: Rng) -> Iterator[TexturedPlane]:
    """Paving, and houses of different heights 25 to 40 m away."""
    for step, reach, least in ((2.0, 10.0, 0.0), (8.0, 40.0, 8.0)):
        paving = np.hstack([_stone(rng, kind) for kind in (cells, bricks)])
        half = round(reach / step)
        for row in range(-half, half):
            for column in range(-half, half):
                if least and max(abs(2 * row + 1), abs(2 * column + 1)) * step / 2 < least:
                    continue
                part = np.ascontiguousarray(paving[row % 3 * 256 :, column % 6 * 256 :][:256, :256])
                corner = np.array([column * step, 0.03 if least else 0, (row + 1) * step])
                edges = np.array([1.01 * step, 0, 0]), np.array([0, 0, -1.01 * step])
                yield render_scene.lit(part, corner, *edges, -DOWN)
    rim = np.linspace(0, 2 * np.pi, 19)
    for one, other in pairwise(rim):
        away = rng.uniform(25, 40)
        left, right = ((away * np.sin(angle), away * np.cos(angle)) for angle in (one, other))
        yield face(_stone(rng, facade), left, right, rng.uniform(7, 15))


def _stone(rng: Rng, kind: Callable[[Rng], Array], tone: Array | None = None) -> Array:
    tone = rng.uniform(95, 180, 3) if tone is None else tone
    return np.asarray(render_scene.blend(kind(rng), noise(rng), 0.4, tone=tone))


def _pedestal(rng: Rng, fold: int, tone: Array) -> list[TexturedPlane]:
    """Two steps and a block; alike sides have the same pictures."""
    planes = []
    for side, low, height in ((2.6, 0.0, 0.18), (2.1, 0.18, 0.18), (1.4, 0.36, 0.94)):
        picture = _stone(rng, bricks, tone)
        for left, right in pairwise(corners((side, side))):
            picture = picture if fold > 1 else _stone(rng, bricks, tone)
            share = height / side
            planes.append(face(picture[: int(768 * share)], left, right, low + height, low))
        corner, edge = np.array([-side / 2, -low - height, side / 2]), np.array([side, 0, 0])
        planes.append(render_scene.lit(_stone(rng, noise, tone), corner, edge, np.array([0, 0, -side]), -DOWN))
    plate = _stone(rng, clutter)
    for index, (left, right) in enumerate(pairwise(corners((1.43, 1.43)))):
        one, other = np.array(left), np.array(right)
        plate = plate if fold > 1 else _stone(rng, clutter)
        if fold > 1 or index != 1:
            ends = (tuple(one + share * (other - one)) for share in (0.2, 0.8))
            planes.append(face(plate[:400], *ends, 1.15, 0.6))
    return planes


def _drum(rng: Rng, radius: float, low: float, height: float, fold: int, tone: Array) -> list[TexturedPlane]:
    """An upright cylinder with lids, whose picture repeats `fold` times."""
    strips = 24
    picture = render_scene.blend(_stone(rng, clutter, tone), noise(rng), 0.45, tone=tone)
    picture = np.tile(cv2.resize(picture, (1024 // fold, 256)), (1, fold, 1))
    angles = np.linspace(0, 2 * np.pi, strips + 1)
    rim = radius * np.column_stack((np.sin(angles), -np.cos(angles)))
    cuts = np.linspace(0, picture.shape[1], strips + 1).astype(int)
    planes = [
        face(np.ascontiguousarray(picture[:, a:b]), tuple(left), tuple(right), low + height, low)
        for (a, b), (left, right) in zip(pairwise(cuts), pairwise(rim), strict=True)
    ]
    disc = np.asarray(cv2.circle(np.zeros((256, 256), np.uint8), (128, 128), 127, 255, -1), np.uint8)
    for up, out in ((low, DOWN), (low + height, -DOWN)):
        corner, edges = np.array([-radius, -up, radius]), 2 * radius * np.array([[1.0, 0, 0], [0, 0, -1.0]])
        planes.append(render_scene.lit(_stone(rng, noise, tone), corner, *edges, out, mask=disc))
    return planes


def _box(
    rng: Rng, *, centre: tuple[float, float], size: tuple[float, ...], turn_deg: float, height: float
) -> list[TexturedPlane]:
    """A crate that is closed from below."""
    planes = list(render_scene.crate(rng, centre=centre, size=size, turn_deg=turn_deg, height=height))
    lid = planes[-1]
    return [*planes, render_scene.lit(lid.texture, lid.origin + size[1] * DOWN, lid.edge_x, lid.edge_y, DOWN)]


def street(rng: Rng) -> Place:
    """A walk of 33 m between houses with equal windows and doors, past parked cars; some photographs look back."""
    half, length = 4.6, 46.0
    windows, doors = ([_opening(rng, is_door) for _ in range(2)] for is_door in (False, True))
    planes = list(_pavement(rng, half + 1, length))
    for side in (-1, 1):
        ends, before = 0.0, half
        while ends < length:
            start, ends, depth = ends, ends + rng.uniform(5.0, 7.5), half + rng.uniform(0, 0.5)
            picture = _front(rng, ends - start, windows, doors)
            planes += _facing(side, depth, start, ends, picture, picture.shape[0] / 96)
            near, far = sorted((before, depth))
            step = ((side * near, start), (side * far, start))
            planes.append(face(_stone(rng, bricks)[:, :128], *step, 6.6))
            before = depth
            for _ in range(int(rng.integers(1, 3))):
                along, up = rng.uniform(start + 1, ends - 1), rng.choice([0.0, 2.9])
                size = (0.8, 0.3 if up == 0 else 0.7, 1.5)
                planes += _box(rng, centre=(side * (depth - 0.4), along), size=size, turn_deg=0, height=float(up))
        for along in np.arange(3, length, 7.5) + rng.uniform(-2, 2, 6):
            centre, turn = (side * (half - 1.5), float(along)), rng.normal(0, 2)
            planes += _box(rng, centre=centre, size=(1.6, 0.8, 4.0), turn_deg=turn, height=0.25)
            planes += _box(rng, centre=centre, size=(1.4, 0.6, 2.0), turn_deg=turn, height=1.05)
    for along, facing in ((-6.0, -1), (length + 4, 1)):
        ends = ((-14.0, along), (14.0, along))[::facing]
        planes.append(face(_front(rng, 28.0, windows, doors), *ends, 9.0))
    stands = []
    turns = np.radians([20, -25, 55, -5, -55, 25, 200, -30, 45, 0, -45, 145])
    for index in range(24):
        centre = np.array([rng.uniform(-0.9, 0.9), -rng.uniform(1.5, 1.8), 2 + 1.42 * index + rng.normal(0, 0.2)])
        turn = turns[index % 12] + rng.normal(0, 0.08)
        way = np.array([np.sin(turn), rng.normal(-0.1, 0.04), np.cos(turn)])
        stands.append(Stand(centre, centre + 6 * way))
    return Place(planes, stands, 26, (0.85, 1.4), 3)


def _pavement(rng: Rng, half: float, length: float) -> Iterator[TexturedPlane]:
    paving, step = np.hstack([_stone(rng, kind) for kind in (cells, bricks)]), 1.5
    for row in range(-4, int(length / step) + 3):
        for column in range(-int(half / step) - 1, int(half / step) + 1):
            part = np.ascontiguousarray(paving[row % 3 * 256 :, column % 6 * 256 :][:256, :256])
            corner = np.array([column * step, 0.0, (row + 1) * step])
            yield render_scene.lit(part, corner, np.array([1.01 * step, 0, 0]), np.array([0, 0, -1.01 * step]), -DOWN)


def _facing(side: int, depth: float, start: float, end: float, picture: Array, top: float) -> Iterator[TexturedPlane]:
    """A front along a street in strips, so that what lies beside a camera can be skipped."""
    cuts = np.linspace(0, 1, int(np.ceil((end - start) / 1.5)) + 1)
    for one, other in pairwise(cuts):
        part = picture[:, int(one * picture.shape[1]) : int(other * picture.shape[1])]
        ends = [(side * depth, start + share * (end - start)) for share in (one, other)]
        if side > 0:
            ends = [(x, start + end - z) for x, z in ends]
        yield face(np.ascontiguousarray(part), *ends, top)


def _opening(rng: Rng, is_door: bool) -> Array:
    """A window or a door, 96 px to the metre."""
    width, height = (96, 210) if is_door else (100, 140)
    picture = np.full((height, width, 3), rng.uniform(60, 230, 3), np.uint8)
    frame, glass = int(rng.integers(6, 14)), rng.uniform(20, 110, 3)
    columns, rows = (1, 2) if is_door else (2, int(rng.integers(1, 4)))
    for row in range(rows):
        for column in range(columns):
            left, right = (frame // 2 + (column + k) * (width - frame) // columns for k in (0, 1))
            top, bottom = (frame // 2 + (row + k) * (height - frame) // rows for k in (0, 1))
            corners = (left + frame // 2, top + frame // 2), (right - frame // 2, bottom - frame // 2)
            cv2.rectangle(picture, *corners, tuple(glass + 25 * row), -1)
    return picture


def _front(rng: Rng, width: float, windows: list[Array], doors: list[Array]) -> Array:
    """A house front `width` m wide with rows of one kind of window and a door, 96 px to the metre."""
    px, storeys = int(width * 96), int(rng.integers(2, 4))
    wall = _stone(rng, bricks if rng.random() < 0.5 else noise)
    picture = np.ascontiguousarray(np.tile(wall, (2, px // 768 + 1, 1))[: storeys * 288 + 60, :px])
    window, door = windows[int(rng.integers(2))], doors[int(rng.integers(2))]
    count = max(2, int(width / rng.uniform(1.6, 2.2)))
    lefts = [int((k + 0.5) / count * px) - window.shape[1] // 2 for k in range(count)]
    door_at = int(rng.integers(count))
    for storey in range(storeys):
        for index, left in enumerate(lefts):
            is_door = storey == storeys - 1 and index == door_at
            opening = door if is_door else window
            bottom = picture.shape[0] - (storeys - 1 - storey) * 288 - (0 if is_door else 85)
            part = picture[bottom - opening.shape[0] : bottom, left : left + opening.shape[1]]
            part[:] = np.clip(opening * rng.uniform(0.9, 1.1), 0, 255)
    if rng.random() < 0.6:  # a sign
        sign = cv2.resize(clutter(rng, 256), (240, 56))
        left = int(rng.integers(0, px - 240))
        picture[-288 : -288 + 56, left : left + 240] = sign
    return picture


def room(rng: Rng) -> Place:
    """A room with the same paper on all walls: turning at four places, and a few photographs in between."""
    sides, high = (5.2, 4.2), 2.6
    motif = cv2.resize(render_scene.blend(clutter(rng, 256), noise(rng, 256), 0.5, tone=(170, 165, 150)), (64, 64))
    planes = list(_floor(rng, sides, high))
    for right, left in pairwise(corners(sides)):
        planes += _papered(rng, motif, np.array(left), np.array(right), high)
    for side in (-1, 1):
        for along in (-1.6, 0.2, 1.7):
            deep, wide, tall = rng.uniform(0.3, 0.55), rng.uniform(0.6, 1.3), rng.uniform(0.45, 1.9)
            middle = (along + rng.normal(0, 0.15), side * (sides[1] / 2 - deep / 2 - 0.02))
            planes += _box(rng, centre=middle, size=(wide, tall, deep), turn_deg=0, height=0)
    planes += _box(rng, centre=(0.4, 0.1), size=(1.3, 0.08, 0.8), turn_deg=rng.uniform(0, 60), height=0.66)
    planes += _box(rng, centre=(0.4, 0.1), size=(0.3, 0.66, 0.3), turn_deg=20, height=0)
    for x, z in ((-0.6, 0.5), (1.3, -0.4)):
        planes += _box(rng, centre=(x, z), size=(0.42, 0.85, 0.42), turn_deg=rng.uniform(0, 90), height=0)
    stands = []
    for x, z in ((-1.5, -1.1), (1.6, -1.0), (1.5, 1.1), (-1.4, 1.0)):
        towards = np.arctan2(-x, -z) + rng.normal(0, 0.15)
        for step in (-1.5, -0.5, 0.5, 1.5):
            stands.append(_look(rng, (x, z), towards + step * np.radians(36), 0.03))
    for x, z in ((0.0, -1.3), (1.9, 0.0), (0.0, 1.3), (-1.9, 0.1)):
        stands.append(_look(rng, (x, z), np.arctan2(-x, -z), 0.15))
    return Place(planes, stands, 20, (0.9, 1.3), 0)


def _look(rng: Rng, place: tuple[float, float], turn: float, spread: float) -> Stand:
    """Out of the hand, held level but for a little."""
    centre = np.array([place[0], -1.45, place[1]]) + rng.normal(0, spread, 3)
    return Stand(centre, centre + [np.sin(turn), rng.normal(0.12, 0.05), np.cos(turn)])


def _floor(rng: Rng, sides: tuple[float, float], high: float) -> Iterator[TexturedPlane]:
    """Floor and ceiling in tiles."""
    boards, step = _stone(rng, bricks), 0.6
    plaster = (225 + 0.2 * (noise(rng) - 128.0)).clip(0, 255).astype(np.uint8)
    for up, picture, out in ((0.0, boards, -DOWN), (high, plaster, DOWN)):
        for row in range(-4, 5):
            for column in range(-5, 5):
                part = np.ascontiguousarray(picture[row % 4 * 160 :, column % 4 * 160 :][:160, :160])
                corner = np.array([column * step, -up, (row + 1) * step])
                edges = np.array([1.01 * step, 0, 0]), np.array([0, 0, -1.01 * step])
                yield render_scene.lit(part, corner, *edges, out)


def _papered(rng: Rng, motif: Array, left: Array, right: Array, high: float) -> Iterator[TexturedPlane]:
    """A wall in strips, with two pictures on it or a window."""
    length = float(np.linalg.norm(right - left))
    px, tall = int(length * 160), int(high * 160)
    paper = np.tile(motif, (tall // 64 + 1, px // 64 + 1, 1))[:tall, :px].astype(float)
    paper += 0.06 * (cv2.resize(noise(rng), (px, tall)).astype(float) - 128)
    paper = np.clip(paper, 0, 255).astype(np.uint8)
    for place in (0.28, 0.72):
        wide, deep = (int(rng.uniform(0.4, 1.0) * 160) for _ in range(2))
        x, y = int((place + rng.normal(0, 0.04)) * px) - wide // 2, int(rng.uniform(0.3, 0.6) * 160)
        cv2.rectangle(paper, (x - 8, y - 8), (x + wide + 8, y + deep + 8), tuple(rng.uniform(20, 200, 3)), -1)
        paper[y : y + deep, x : x + wide] = cv2.resize(render_scene.painted(rng), (wide, deep))
    strips = int(np.ceil(length / 0.6))
    for one, other in pairwise(np.linspace(0, 1, strips + 1)):
        part = np.ascontiguousarray(paper[:, int(one * px) : int(other * px)])
        ends = (tuple(left + share * (right - left)) for share in (one, other))
        yield face(part, *ends, high)


PLACES: dict[str, Callable[[Rng], Place]] = {
    "orbit": statue(is_alike=False),
    "orbit-alike": statue(is_alike=True),
    "street": street,
    "room": room,
}
