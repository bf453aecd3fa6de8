"""Turn a finished job's warps and model into a dense point cloud, without matching again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from romacli.densify.depth import Sight, depth_by_agreement
from romacli.densify.fuse import Cloud, DepthMap, fuse
from romacli.densify.options import DensifyOptions
from romacli.disk import check_writable
from romacli.errors import ImageError, InputError, NothingFoundError
from romacli.geometry.warp import REFERENCE_LONG_SIDE, cell_centres, warp_fields
from romacli.images.decode import read_image
from romacli.job.masks import JobMasks, masks_of, noted_masks
from romacli.job.outputs.model import CLOUD, DEPTH_MAPS, dense_output, model_digests
from romacli.job.outputs.origins import digest, remember
from romacli.mapping.cameras import PosedCamera, read_cameras
from romacli.progress import Progress
from romacli.stop import StopRequest
from romacli.store.history import noted, photographs_of, require_photographs
from romacli.store.journal import Journal
from romacli.store.layout import Layout, model_of
from romacli.store.manifest import manifest_of
from romacli.store.opened import open_journal
from romacli.store.ply import write_depth_map, write_ply, write_visibility
from romacli.types import CompactWarp, Pair, Size
from romacli.words import counted, first_few

_GREY = 128


@dataclass(frozen=True)
class DensifySummary:
    """The result. mean_views: images that agree on a point; uncoloured: images whose photographs are missing."""

    points: int
    images: int
    pairs: int
    mean_views: float
    uncoloured: tuple[str, ...]


def densify(
    layout: Layout,
    images: Path | None,
    cloud: Path,
    options: DensifyOptions,
    progress: Progress,
    stop: StopRequest,
    *,
    depth_maps: bool = False,
) -> DensifySummary:
    """Write the dense cloud of a job and, next to it, the images that see each point.

    Args:
        images: folder of the photographs, for colours; by default the one used for matching.
        cloud: the PLY file. depth_maps: write a depth map of each image, too.

    Raises:
        InputError: the folder contains no job or no model, or the model is not of the job's photographs.
        NothingFoundError: no three images agree on any point.
        StoreError: a file cannot be written.
    """
    source, made_of = _Source.open(layout), model_digests(layout.model)
    if images is not None:
        require_photographs(layout, images)
    check_writable(cloud)
    folder = images or photographs_of(layout)
    maps, neighbours, uncoloured = [], [], []
    number = {name: index for index, name in enumerate(source.cameras)}
    with source.journal, noted(layout, "dense", images=folder) as counts:
        progress.begin("finding depth", len(source.cameras))
        for camera in source.cameras.values():
            stop.check()
            partners = source.partners(camera, options.max_neighbours)
            neighbours.append([number[name] for name in partners])
            found = _depth_map(source, camera, partners, options)
            colours = _colours(folder, camera, found.depths.shape)
            if colours is None:
                uncoloured.append(camera.name)
            else:
                found = replace(found, colours=colours)
            maps.append(found)
            progress.advance()
        progress.begin("fusing", 1)
        fused = fuse(maps, neighbours, options)
        counts.update(points=len(fused))
    if not len(fused):
        raise NothingFoundError(
            f"no {options.min_views} images of {layout.root} agree on the depth of any point. Match more pairs of "
            "neighbouring photographs, or lower --min-views."
        )
    _write(layout, cloud, fused, maps if depth_maps else (), made_of)
    if uncoloured:
        progress.warn(
            f"{counted(len(uncoloured), 'photograph is', 'photographs are')} missing or changed, so points there are "
            f"grey: {first_few(uncoloured)}. Give their folder with --images"
        )
    views = float(np.mean([len(seen) for seen in fused.visible]))
    return DensifySummary(len(fused), len(maps), sum(map(len, neighbours)) // 2, views, tuple(uncoloured))


def _write(layout: Layout, cloud: Path, fused: Cloud, maps: Sequence[DepthMap], made_of: Any) -> None:
    """Write the cloud, and depth maps if there are any; the job notes the model that they were made of."""
    write_ply(cloud, fused.xyz, fused.normals, fused.colours)
    write_visibility(cloud.with_name(f"{cloud.name}.vis"), fused.visible)
    if cloud.resolve() == layout.cloud.resolve():
        remember(layout, dense_output(layout, CLOUD), digest(made_of), {"points": len(fused)}, sources=made_of)
    for found in maps:
        write_depth_map(layout.depth_map(found.camera.name), found.depths)
    if maps:
        remember(layout, dense_output(layout, DEPTH_MAPS), digest(made_of), {"images": len(maps)}, sources=made_of)


@dataclass(frozen=True)
class _Source:
    """The model and the warps of a job.

    cameras: by name, ids ascending. pairs: each image's pairs with a warp, largest overlap first.
    """

    cameras: dict[str, PosedCamera]
    journal: Journal
    pairs: dict[str, list[Pair]]
    masks: JobMasks | None

    @classmethod
    def open(cls, layout: Layout) -> _Source:
        manifest, model = manifest_of(layout, "reconstruct"), model_of(layout)
        cameras = {camera.name: camera for camera in read_cameras(model)}
        sizes = {name: camera.size for name, camera in cameras.items()}
        journal = open_journal(layout, manifest)
        with ExitStack() as opened:
            opened.enter_context(journal)
            pairs = _pairs_of_images(journal, model, sizes)
            masks = masks_of(noted_masks(layout), sizes)
            if not any(pairs.values()):
                raise InputError(
                    f"{layout.root} contains no warp between images of its model. Dense clouds need a dense matcher, "
                    "such as mini."
                )
            opened.pop_all()
        return cls(cameras, journal, pairs, masks)

    def partners(self, camera: PosedCamera, most: int) -> dict[str, Pair]:
        """The images with the largest overlaps with this one, each with its pair."""
        return {next(name for name in pair if name != camera.name): pair for pair in self.pairs[camera.name][:most]}

    def warp(self, pair: Pair) -> CompactWarp:
        record = self.journal.warp(pair)
        return record if self.masks is None else self.masks.without_masked(pair, record)


def _pairs_of_images(journal: Journal, model: Path, sizes: dict[str, Size]) -> dict[str, list[Pair]]:
    pairs: dict[str, list[Pair]] = {name: [] for name in sizes}
    warps = [pair for pair in journal.pairs if journal.kind(pair) == "warp" and sizes.keys() >= set(pair)]
    for pair in sorted(warps, key=lambda pair: -(journal.overlap(pair) or 0)):
        _require_sizes(model, pair, journal.sizes(pair), sizes)
        for name in pair:
            pairs[name].append(pair)
    return pairs


def _require_sizes(model: Path, pair: Pair, matched: tuple[Size, Size], sizes: dict[str, Size]) -> None:
    for name, size in zip(pair, matched, strict=True):
        if size != sizes[name]:
            raise InputError(
                f"{model} has {name} at {sizes[name][0]}x{sizes[name][1]} px, but it was matched at "
                f"{size[0]}x{size[1]}. Build the model again with `romacli reconstruct`."
            )


def _depth_map(source: _Source, camera: PosedCamera, partners: dict[str, Pair], options: DensifyOptions) -> DepthMap:
    """The depths of an image on the grid of its warps, still without colours."""
    sights: list[Sight] = []
    shape, rays = (2, 2), np.zeros((2, 2, 2))
    for name, pair in partners.items():
        record = source.warp(pair)
        is_first = pair[0] == camera.name
        field = warp_fields(record)[0 if is_first else 1]
        if not sights:
            shape = (record.weight_AB if is_first else record.weight_BA).shape
            rays = camera.rays(cell_centres(shape, camera.size)).reshape(*shape, 2)
        other = source.cameras[name]
        read = field.at(cell_centres(shape, camera.size).reshape(-1, 2))
        targets = other.rays(read.targets)
        sound = (read.weights > 0) & np.isfinite(targets).all(1)
        targets[~sound] = 0
        per_px = other.focal_px * REFERENCE_LONG_SIDE / max(other.size)
        sights.append(Sight(camera.pose.to(other.pose), targets, np.where(sound, read.weights, 0), per_px))
    flat = rays.reshape(-1, 2)
    depths, sigmas = depth_by_agreement(np.nan_to_num(flat), sights, options)
    depths = np.where(np.isfinite(flat).all(1), depths, 0).reshape(shape).astype(np.float32)
    sigmas = sigmas.reshape(shape).astype(np.float32)
    grey = np.full((*shape, 3), _GREY, np.uint8)
    return DepthMap(camera, depths, sigmas, np.nan_to_num(rays).astype(np.float32), grey)


def _colours(folder: Path | None, camera: PosedCamera, shape: tuple[int, int]) -> np.ndarray | None:
    """A photograph's colours at the cells of a grid, (gh, gw, 3) uint8 RGB; None if it is missing or has changed."""
    try:
        photograph = read_image(folder / camera.name) if folder else None
    except (ImageError, InputError):
        return None
    if photograph is None or photograph.shape[1::-1] != camera.size:
        return None
    area = cv2.resize(photograph, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(area, np.uint8)
