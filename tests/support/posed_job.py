"""A job of cameras above a slanted plane, with exact warps in its journal and the true model: nothing is matched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from romacli.colmap.poses import Pose
from romacli.geometry.warp import cell_centres, encode_targets
from romacli.pairs.listfile import write_pairs
from romacli.store.journal import JournalWriter
from romacli.store.layout import Layout
from romacli.store.manifest import fingerprint, write_manifest
from romacli.types import CompactWarp, Manifest, Pair, PairList

from .small_scene import look_at

SIZE = (640, 480)
FOCAL = 700.0
GRID = (48, 64)
NORMAL = np.array([0.3, 0.1, -1.0]) / np.linalg.norm([0.3, 0.1, -1.0])  # of the plane through the origin
RED = (200, 30, 40)
NUM_POINTS = 400


@dataclass(frozen=True)
class PosedJob:
    layout: Layout
    photographs: Path
    poses: dict[str, Pose]


def through_the_plane(one: Pose, other: Pose, pixels: np.ndarray) -> np.ndarray:
    """Where another camera sees the points of the plane that one camera sees at pixels (n, 2), (n, 2)."""
    rays = (pixels - np.array(SIZE) / 2) / FOCAL
    directions = np.column_stack((rays, np.ones(len(rays)))) @ one.rotation
    depths = -(one.centre @ NORMAL) / (directions @ NORMAL)
    seen = (one.centre + directions * depths[:, None]) @ other.rotation.T + other.translation
    return seen[:, :2] / seen[:, 2:] * FOCAL + np.array(SIZE) / 2


def _one_way(one: Pose, other: Pose, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    targets = through_the_plane(one, other, cell_centres(GRID, SIZE).reshape(-1, 2)).reshape(*GRID, 2)
    inside = ((targets >= 0) & (targets <= SIZE)).all(-1)
    return encode_targets(targets + noise, SIZE), np.where(inside, 255, 0).astype(np.uint8)


def posed_job(root: Path, *, count: int = 5, shift: Callable[[Pair], float] = lambda pair: 0.0) -> PosedJob:
    """Make the job under `root`. shift: error of a pair's warps, px."""
    layout, photographs = Layout(root / "job"), root / "photos"
    centres = [np.array([1.2 * index - 2.4, -0.4, -6.0]) for index in range(count)]
    poses = {f"{index}.png": look_at(centre, np.zeros(3)) for index, centre in enumerate(centres)}
    manifest = Manifest({"model": "plane", "seed": 0}, "0")
    layout.root.mkdir(parents=True)
    write_manifest(layout.manifest, manifest)
    pairs = tuple(combinations(poses, 2))
    write_pairs(layout.pairs, PairList(pairs))
    with JournalWriter(layout.journal, fingerprint(manifest)) as journal:
        journal.append([(pair, _record(poses, pair, shift(pair))) for pair in pairs])
    _write_model(layout.sparse / "0", poses)
    for index, name in enumerate(poses):
        write_photograph(photographs / name, index)
    return PosedJob(layout, photographs, poses)


def write_photograph(path: Path, index: int) -> np.ndarray:
    """A red photograph, unique by one pixel, (h, w, 3) RGB."""
    image = np.full((SIZE[1], SIZE[0], 3), RED, np.uint8)
    image[0, 0] = (RED[0], index, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])
    return image


def plane_from_image(pose: Pose) -> np.ndarray:
    """The homography (3, 3) from COLMAP pixels of a camera to coordinates on the plane."""
    along, across = _axes()
    intrinsics = np.array([[FOCAL, 0, SIZE[0] / 2], [0, FOCAL, SIZE[1] / 2], [0, 0, 1]])
    columns = np.column_stack((pose.rotation @ along, pose.rotation @ across, pose.translation))
    return np.linalg.inv(intrinsics @ columns)


def _axes() -> tuple[np.ndarray, np.ndarray]:
    along = np.cross(NORMAL, [0.0, 1.0, 0.0])
    along /= np.linalg.norm(along)
    return along, np.cross(NORMAL, along)


def _record(poses: dict[str, Pose], pair: Pair, shift_px: float) -> CompactWarp:
    one, other = (poses[name] for name in pair)
    noise = np.full(2, shift_px)
    (target_AB, weight_AB), (target_BA, weight_BA) = _one_way(one, other, noise), _one_way(other, one, noise)
    return CompactWarp(target_AB, weight_AB, target_BA, weight_BA, SIZE, SIZE, float((weight_AB > 0).mean()))


def _write_model(folder: Path, poses: dict[str, Pose]) -> None:
    folder.mkdir(parents=True)
    (folder / "cameras.txt").write_text(f"1 SIMPLE_PINHOLE {SIZE[0]} {SIZE[1]} {FOCAL} {SIZE[0] / 2} {SIZE[1] / 2}\n")
    lines = []
    world = np.random.default_rng(0).uniform(-2, 2, (NUM_POINTS, 2)) @ np.array(_axes())
    tracks: list[list[str]] = [[] for _ in world]
    for number, (name, pose) in enumerate(poses.items(), start=1):
        axis_angle = cv2.Rodrigues(pose.rotation)[0].ravel()
        angle = float(np.linalg.norm(axis_angle))
        vector = np.sinc(angle / 2 / np.pi) / 2 * axis_angle
        numbers = (np.cos(angle / 2), *vector, *pose.translation)
        lines.append(f"{number} {' '.join(f'{value:.12g}' for value in numbers)} 1 {name}\n")
        seen = world @ pose.rotation.T + pose.translation
        places = seen[:, :2] / seen[:, 2:] * FOCAL + np.array(SIZE) / 2
        visible = np.flatnonzero(((places >= 0) & (places <= SIZE)).all(1))
        for row, point in enumerate(visible):
            tracks[point].append(f"{number} {row}")
        lines.append(" ".join(f"{places[point][0]:.9g} {places[point][1]:.9g} {point + 1}" for point in visible) + "\n")
    (folder / "images.txt").write_text("".join(lines))
    rows = [
        f"{point + 1} {' '.join(f'{value:.12g}' for value in xyz)} 200 30 40 0 {' '.join(track)}\n"
        for point, (xyz, track) in enumerate(zip(world, tracks, strict=True))
        if track
    ]
    (folder / "points3D.txt").write_text("".join(rows))
