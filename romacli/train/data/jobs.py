"""Photographs of finished jobs, with the depth and poses that many of them agree on: a network's own matches, checked.

A network can learn from its own matches what it did not know when it found them, if it is taught only those that
several views confirm, and if the photographs are first cropped and put in other light.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from romacli.errors import InputError
from romacli.geometry.coordinates import colmap_to_hloc
from romacli.geometry.turns import turn_image
from romacli.geometry.warp import cell_centres
from romacli.images.upright import read_upright
from romacli.job.outputs.model import DEPTH_MAPS
from romacli.job.outputs.outdated import is_of_earlier_model
from romacli.mapping.cameras import PosedCamera, read_cameras
from romacli.store.history import photographs_of
from romacli.store.images import read_images, unusable
from romacli.store.layout import Layout, layout_of, model_of
from romacli.store.ply import read_depth_map
from romacli.synthetic.pairs import in_other_light
from romacli.synthetic.school import CHANGED
from romacli.train.trainable import Batch, moved
from romacli.words import counted, counted_of

from .photographs import PhotographedPairs
from .posed import DEPTH_TOLERANCE, PosedView, inverse_depth_at, quarter_turned

LEAST_OVERLAPS = (0.1,)
SMALLEST_WINDOW = 0.4  # so that scales differ by up to 2.5
LONGEST_SIDE = 640  # px; larger photographs are made smaller when read
CACHED = 64  # views in memory, some 2 MB each
PROBE = (16, 16)  # points of a view that its overlaps are counted on


@dataclass(frozen=True, eq=False)
class JobScene:
    """The photographs of a job with a depth map, undistorted and upright when read; panoramas are left out.

    cameras: of its model. photographs: their folder.
    """

    layout: Layout
    cameras: Sequence[PosedCamera]
    photographs: Path
    pairs: NDArray[np.int64]
    overlaps: NDArray[np.float64]

    @classmethod
    def open(cls, root: Path) -> JobScene:
        """Read the model and depth maps of a job, given as `layout_of` takes it.

        Raises:
            InputError: it has none, the depth maps are damaged or of an earlier model, or the photographs are
                gone or changed.
        """
        layout = layout_of(root)
        model, photographs = model_of(layout), photographs_of(layout)
        posed = [camera for camera in read_cameras(model) if not camera.is_spherical]
        cameras = [camera for camera in posed if layout.depth_map(camera.name).exists()]
        if len(cameras) < 2:
            raise InputError(
                f"{root} has depth maps of {counted(len(cameras), 'image')}, and a pair needs two. "
                f"Run `romacli densify {root} --depth-maps` first."
            )
        if is_of_earlier_model(layout, DEPTH_MAPS):
            raise InputError(
                f"{layout.depth_maps} was made from an earlier {model}. "
                f"Run `romacli densify {root} --depth-maps` again."
            )
        if photographs is None or not photographs.is_dir():
            fault = (
                f"had its photographs in {photographs}, which is gone"
                if photographs
                else "does not say where its photographs are"
            )
            raise InputError(f"{root} {fault}. Run `romacli match PHOTOGRAPHS -o {root}` with their folder.")
        faults = unusable(photographs, read_images(layout.images), [camera.name for camera in cameras])
        if faults:
            name = min(faults)
            raise InputError(
                f"{counted_of(len(faults), len(cameras), 'photograph', 'is', 'are')} not in {photographs} as "
                f"{root} was made from them: {name} is {faults[name]}. Put them back; if they show the same, run "
                "`romacli match` with --changed keep first."
            )
        pairs = np.array(list(combinations(range(len(cameras)), 2)), np.int64).reshape(-1, 2)
        seen = shares_seen(cameras, [read_depth_map(layout.depth_map(camera.name)) for camera in cameras])
        overlaps = np.minimum(seen, seen.T)[pairs[:, 0], pairs[:, 1]]
        return cls(layout, cameras, photographs, pairs, overlaps)

    @property
    def name(self) -> str:
        return str(self.layout.root)

    def view(self, number: int) -> PosedView:
        return _view(self, number)

    def files(self, number: int) -> tuple[Path, ...]:
        name = self.cameras[number].name
        return self.photographs / name, self.layout.depth_map(name)


@lru_cache(maxsize=CACHED)
def _view(scene: JobScene, number: int) -> PosedView:
    camera = scene.cameras[number]
    path, depth_path = scene.files(number)
    upright, turns = read_upright(path)
    image = turn_image(upright, -turns)  # as stored, and as the model knows it
    if (image.shape[1], image.shape[0]) != camera.size:
        raise InputError(
            f"{path} is {image.shape[1]}x{image.shape[0]} px, but {camera.size[0]}x{camera.size[1]} in the model "
            f"of {scene.name}. Put the photograph that was matched back."
        )
    view = undistorted(camera, image, read_depth_map(depth_path))
    for _ in range(turns):
        view = quarter_turned(view)
    return view


@dataclass(frozen=True)
class JobPairs:
    """Random pairs of photographs of jobs, each a random window in another light."""

    pairs: PhotographedPairs

    @classmethod
    def of(cls, folder: Path) -> JobPairs:
        """Return the pairs of a job, or of all jobs in a folder.

        Raises:
            InputError: there is no job, or one is not ready to be trained on.
        """
        roots = [root for root in (folder, *sorted(folder.glob("*"))) if layout_of(root).manifest.exists()]
        if not roots:
            raise InputError(f"{folder} is no job, and no folder of jobs. Give --jobs one from `romacli reconstruct`.")
        scenes = [JobScene.open(root) for root in roots]
        return cls(
            PhotographedPairs.of(
                scenes, least_overlaps=LEAST_OVERLAPS, smallest_window=SMALLEST_WINDOW, is_partial=True
            )
        )

    def begun(self, rng: np.random.Generator, size: int, count: int) -> Batch:
        images, warp, visible = self.pairs.begun(rng, size, count)
        pictures = images.permute(0, 2, 3, 1).numpy()
        lit = [in_other_light((pictures[i], pictures[count + i]), rng, CHANGED) for i in range(count)]
        stack = np.stack([first for first, _ in lit] + [second for _, second in lit])
        return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous(), warp, visible

    def finished(self, begun: Batch, device: torch.device) -> Batch:
        return moved(begun, device)


def undistorted(camera: PosedCamera, image: NDArray[np.uint8], depth: NDArray[np.float32]) -> PosedView:
    """Return a photograph as a pinhole camera of its focal length and size would see it, at most `LONGEST_SIDE` px.

    Args:
        image: (H, W, 3) uint8 RGB. depth: (h, w) along the optical axis, 0 where unknown, over the same field of view.
    """
    shrink = min(1.0, LONGEST_SIDE / max(camera.size))
    width, height = (round(side * shrink) for side in camera.size)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) if shrink < 1 else image
    places, is_inside = through_lens(camera, pinhole_rays(camera, (height, width)))
    scale = np.array((width, height)) / camera.size
    x, y = np.moveaxis(colmap_to_hloc(places * scale), -1, 0).astype(np.float32)
    seen = cv2.remap(small, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    seen[~is_inside] = 0
    rays = pinhole_rays(camera, (depth.shape[0], depth.shape[1]))
    places, is_inside = through_lens(camera, rays)
    # A wide lens shows rays from beyond its field of view inside the photograph, too, in the place of others.
    is_own = np.linalg.norm(camera.rays(places).reshape(rays.shape) - rays, axis=-1) * camera.focal_px < 1
    inverse = _inverse_depths(camera, depth, places)
    depths = np.divide(1, inverse, out=np.zeros_like(inverse), where=is_inside & is_own & (inverse > 0))
    focal_x, focal_y = camera.focal_px * scale
    K = np.array([[focal_x, 0, width / 2], [0, focal_y, height / 2], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3] = np.column_stack((camera.pose.rotation, camera.pose.translation))
    return PosedView(np.asarray(seen, np.uint8), depths, K, pose)


def pinhole_rays(camera: PosedCamera, shape: tuple[int, int]) -> NDArray[np.float64]:
    """What a pinhole camera of the same focal length and size sees in the cells of a grid, (h, w, 2) at depth 1."""
    return np.asarray((cell_centres(shape, camera.size) - np.array(camera.size) / 2) / camera.focal_px, np.float64)


def through_lens(camera: PosedCamera, rays: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Where a photograph shows points (h, w, 2) at depth 1.

    Returns:
        (h, w, 2) COLMAP pixels of the photograph, 0 outside, and (h, w) whether they are inside.
    """
    points = np.concatenate((rays, np.ones((*rays.shape[:2], 1))), axis=-1)
    places = camera.pixels(points).reshape(rays.shape)
    is_inside = np.asarray(np.logical_and(places > 0, places < camera.size).all(axis=-1))
    return np.where(is_inside[..., None], places, 0), is_inside


def shares_seen(cameras: Sequence[PosedCamera], depths: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return the share (n, n) of each view's points of known depth that each other view shows at the same depth."""
    shares = np.zeros((len(cameras), len(cameras)))
    for row, (camera, depth) in enumerate(zip(cameras, depths, strict=True)):
        places = cell_centres(PROBE, camera.size).reshape(-1, 2)
        inverse = _inverse_depths(camera, depth, places)
        rays = camera.rays(places)
        is_known = (inverse > 0) & np.isfinite(rays).all(1)
        points = np.column_stack((rays, np.ones(len(rays))))[is_known] / inverse[is_known, None]
        world = (points - camera.pose.translation) @ camera.pose.rotation
        for column, (other, own) in enumerate(zip(cameras, depths, strict=True)):
            if column == row or not len(world):
                continue
            seen_at, distance = other.project(world)
            inside = ((seen_at > 0) & (seen_at < other.size)).all(1)
            agrees = np.abs(distance[inside] * _inverse_depths(other, own, seen_at[inside]) - 1) < DEPTH_TOLERANCE
            shares[row, column] = agrees.sum() / len(world)
    return shares


def _inverse_depths(
    camera: PosedCamera, depth: NDArray[np.float32], points: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Inverse depths (...) at COLMAP pixels (..., 2) of a camera's photograph."""
    scale = np.array(depth.shape[::-1]) / camera.size
    return inverse_depth_at(depth, (points * scale).astype(np.float32))
