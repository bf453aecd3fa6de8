"""A renderer for many views at once, on any device, with the same pictures, warps and visibility as `scenes`.

Pictures stay on the device as an atlas; a batch of scenes is a table of small matrices, computed on the CPU. Planes are
processed in turn: for all views, the pixels that each covers and where it is nearest. Colours are read once, from the
nearest plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from romacli.geometry.coordinates import colmap_to_hloc, from_colmap_pixels

from .scenes import (
    BACKGROUND_GREY,
    DEPTH_TOLERANCE,
    MAX_INVERSE_DEPTH,
    MIN_INVERSE_DEPTH,
    SMALLEST_LEVEL_PX,
    Camera,
    TexturedPlane,
    image_from_texture,
    inverse_depth_of,
    region_of,
    texels_per_pixel,
)
from .textures import Textures

MASK_PX = 256

Scene = tuple[Sequence[TexturedPlane], tuple[Camera, Camera]]


@dataclass(frozen=True)
class AtlasIndex:
    """Positions of an atlas's pictures, level by level.

    Attributes:
        starts: (pictures, levels) index of the first texel; the smallest level is repeated.
        shapes: (pictures, levels, 2) height and width.
    """

    starts: NDArray[np.int64]
    shapes: NDArray[np.int64]


@dataclass(frozen=True)
class Atlas:
    """All pictures of a pool at full, half, quarter ... resolution.

    Attributes:
        texels: (T, 3) uint8 RGB, picture by picture, row by row.
        index: their positions.
    """

    texels: Tensor
    index: AtlasIndex

    @classmethod
    def of(cls, textures: Textures, device: torch.device) -> Atlas:
        """Copy a pool of pictures to a device; takes 4 bytes per pixel."""
        pyramids = [_down_to_smallest(pyramid) for pyramid in textures.pyramids]
        depth = max(len(pyramid) for pyramid in pyramids)
        starts, shapes, start = [], [], 0
        for pyramid in pyramids:
            sizes = [level.shape[:2] for level in pyramid]
            begins = start + np.cumsum([0, *(height * width for height, width in sizes)])
            starts.append([*begins[:-1], *[begins[-2]] * (depth - len(sizes))])
            shapes.append([*sizes, *[sizes[-1]] * (depth - len(sizes))])
            start = int(begins[-1])
        texels = np.concatenate([level.reshape(-1, 3) for pyramid in pyramids for level in pyramid])
        index = AtlasIndex(np.array(starts, np.int64), np.array(shapes, np.int64))
        return cls(torch.from_numpy(texels).to(device), index)

    def to(self, device: torch.device) -> Atlas:
        """Return the atlas on a device."""
        return Atlas(self.texels.to(device), self.index)


@dataclass(frozen=True)
class ViewTable:
    """The contents of V views, plane by plane; views v and (v + V / 2) mod V show the same scene.

    Attributes:
        size: px, side of the pictures.
        masked: (P) whether the plane with that index has a mask in any view.
        inverse_depth: (V, P, 3) a, b, c of a x + b y + c; zeros where there is no plane.
        texture_from_image: (V, P, 9) homographies, row-major.
        texture_size: (V, P, 2) width and height of the textures.
        endless: (V, P) bool.
        mask: (V, P) row of `masks`, -1 for none.
        masks: (M, side, side) uint8, opaque above 127.
        level_from_texture: (V, P, 6) affine to the pixels of a picture's level, row-major.
        level_start, level_shape: (V, P) and (V, P, 2) of that level in the atlas.
        rays, shift: (V, 9) and (V, 3), x_other ~ rays x + shift / depth.
        related: (V,) bool, whether both views show one scene.
        in_both: (V, P) bool, whether both views of a pair show the plane.
    """

    size: int
    masked: tuple[bool, ...]
    inverse_depth: Tensor
    texture_from_image: Tensor
    texture_size: Tensor
    endless: Tensor
    mask: Tensor
    masks: Tensor
    level_from_texture: Tensor
    level_start: Tensor
    level_shape: Tensor
    rays: Tensor
    shift: Tensor
    related: Tensor
    in_both: Tensor

    def to(self, device: torch.device) -> ViewTable:
        """Return the table on a device."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        return ViewTable(**values | {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})


@dataclass(frozen=True)
class Views:
    """The rendered views of a table.

    Attributes:
        rgb: (V, 3, S, S) float32 in [0, 255], grey where there is no plane.
        plane_index: (V, S, S) int64, -1 for none.
        inverse_depth: (V, S, S) float32, 0 where there is no plane.
    """

    rgb: Tensor
    plane_index: Tensor
    inverse_depth: Tensor


def view_table(pairs: Sequence[tuple[Scene, Scene]], index: AtlasIndex) -> ViewTable:
    """Return the table for pairs of views: the first camera of one scene, the second of another or the same."""
    views = [(planes, camera) for (planes, (camera, _)), _ in pairs]
    views += [(planes, camera) for _, (planes, (_, camera)) in pairs]
    count, depth = len(views), max(len(planes) for planes, _ in views)
    size = views[0][1].size[0]
    table: dict[str, NDArray[Any]] = {
        "inverse_depth": np.zeros((count, depth, 3), np.float32),
        "texture_from_image": np.zeros((count, depth, 9), np.float32),
        "texture_size": np.ones((count, depth, 2), np.float32),
        "endless": np.zeros((count, depth), np.bool_),
        "mask": np.full((count, depth), -1, np.int64),
        "level_from_texture": np.zeros((count, depth, 6), np.float32),
        "level_start": np.zeros((count, depth), np.int64),
        "level_shape": np.ones((count, depth, 2), np.int64),
        "in_both": np.zeros((count, depth), np.bool_),
    }
    masks: dict[int, int] = {}
    shown: list[NDArray] = []
    for view, (planes, camera) in enumerate(views):
        for row, plane in enumerate(planes):
            region = region_of(plane, camera, int(view >= count // 2))
            if region is None:
                continue
            if plane.mask is not None and id(plane.mask) not in masks:
                masks[id(plane.mask)] = len(shown)
                shown.append(cv2.resize(plane.mask, (MASK_PX, MASK_PX), interpolation=cv2.INTER_LINEAR))
            cells = _plane_row(plane, camera, region, index)
            cells["mask"] = -1 if plane.mask is None else masks[id(plane.mask)]
            for name, value in cells.items():
                table[name][view, row] = value
    rays, shift = zip(*(_relative(views[v][1], views[(v + count // 2) % count][1]) for v in range(count)), strict=True)
    related = np.array([first is second for first, second in pairs] * 2)
    return ViewTable(
        size=size,
        masked=tuple(bool(column.max() >= 0) for column in table["mask"].T),
        **{name: torch.from_numpy(values) for name, values in table.items()},
        masks=torch.from_numpy(np.stack(shown) if shown else np.zeros((1, MASK_PX, MASK_PX), np.uint8)),
        rays=torch.from_numpy(np.stack(rays).astype(np.float32)),
        shift=torch.from_numpy(np.stack(shift).astype(np.float32)),
        related=torch.from_numpy(related),
    )


def render(table: ViewTable, atlas: Atlas) -> Views:
    """Render all views of a table; table and atlas must be on the same device."""
    u, v = _centres(table)
    count, depth = table.mask.shape
    inverse_depth = u.new_zeros((count, table.size, table.size))
    plane_index = torch.full(inverse_depth.shape, -1, device=u.device)
    for plane in range(depth):
        a, b, c = table.inverse_depth[:, plane, :, None, None].unbind(1)
        candidate = a * u + b * v + c
        nearer = (candidate > inverse_depth.clamp(min=MIN_INVERSE_DEPTH)) & (candidate < MAX_INVERSE_DEPTH)
        x, y = _transformed(table.texture_from_image[:, plane, :, None, None].unbind(1), u, v)
        width, height = table.texture_size[:, plane, :, None, None].unbind(1)
        nearer &= ((x >= 0) & (x <= width) & (y >= 0) & (y <= height)) | table.endless[:, plane, None, None]
        if table.masked[plane]:
            nearer &= _opaque(table, plane, x / width, y / height)
        inverse_depth = torch.where(nearer, candidate, inverse_depth)
        plane_index = torch.where(nearer, plane, plane_index)
    return Views(_colours(table, atlas, plane_index), plane_index, inverse_depth)


def warps(table: ViewTable, views: Views) -> tuple[Tensor, Tensor]:
    """Return the target of each pixel in its partner view, and whether it is visible there.

    Returns:
        (V, S, S, 2) float32 normalised, meaningless (but finite) where there is no plane; (V, S, S) bool.
    """
    u, v = _centres(table)
    size, half = table.size, len(table.mask) // 2
    rays, shift = table.rays[..., None, None].unbind(1), table.shift[..., None, None].unbind(1)
    x, y, z = (
        rays[3 * i] * u + rays[3 * i + 1] * v + rays[3 * i + 2] + shift[i] * views.inverse_depth for i in range(3)
    )
    in_front = (z > 1e-4) & (views.inverse_depth > 0)
    z = torch.where(in_front, z, 1.0)
    warp = torch.stack((x / z, y / z), dim=-1)
    inside = in_front & (warp > 0).all(dim=-1) & (warp < size).all(dim=-1)
    place = warp.clamp(0, size - 1).long()
    flat = (place[..., 1] * size + place[..., 0]).flatten(1)
    other_plane, other_depth = (
        maps.roll(half, 0).flatten(1).gather(1, flat).view_as(maps) for maps in (views.plane_index, views.inverse_depth)
    )
    unoccluded = views.inverse_depth / z > other_depth * DEPTH_TOLERANCE
    visible = inside & ((other_plane == views.plane_index) | unoccluded) & table.related[:, None, None]
    visible &= table.in_both.gather(1, views.plane_index.clamp(min=0).flatten(1)).view_as(visible)
    return from_colmap_pixels(warp.clamp(-4 * size, 4 * size), (size, size)), visible


def _plane_row(
    plane: TexturedPlane, camera: Camera, region: tuple[slice, slice], index: AtlasIndex
) -> dict[str, NDArray | int]:
    assert plane.excerpt is not None, "only planes textured from the atlas can be rendered here"
    rows, columns = region
    homography = image_from_texture(plane, camera)
    to_region = np.array([[1, 0, -columns.start], [0, 1, -rows.start], [0, 0, 1.0]])
    shape = (columns.stop - columns.start, rows.stop - rows.start)
    to_picture, picture = plane.excerpt.picture_from_texture, plane.excerpt.picture
    per_texel = np.sqrt(abs(np.linalg.det(to_picture[:2, :2])))
    texels = texels_per_pixel(plane, to_region @ homography, shape) * per_texel
    level = int(np.clip(np.round(np.log2(max(texels, 1e-3))), 0, index.starts.shape[1] - 1))
    to_level = np.diag((*(index.shapes[picture, level] / index.shapes[picture, 0])[::-1], 1.0))
    return {
        "inverse_depth": inverse_depth_of(plane, camera),
        "texture_from_image": np.linalg.inv(homography).ravel(),
        "texture_size": np.array(plane.texture.shape[1::-1]),
        "endless": plane.endless,
        "in_both": plane.only_in is None,
        "level_from_texture": (to_level @ to_picture)[:2].ravel(),
        "level_start": index.starts[picture, level],
        "level_shape": index.shapes[picture, level],
    }


def _relative(camera: Camera, other: Camera) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rotation = other.R @ camera.R.T
    translation = other.t - rotation @ camera.t
    return (other.K @ rotation @ np.linalg.inv(camera.K)).ravel(), other.K @ translation


def _down_to_smallest(pyramid: Sequence[NDArray]) -> list[NDArray]:
    levels: list[NDArray] = list(pyramid)
    while min(levels[-1].shape[:2]) > SMALLEST_LEVEL_PX:
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return levels


def _centres(table: ViewTable) -> tuple[Tensor, Tensor]:
    """x (1, 1, S) and y (1, S, 1) of the pixel centres."""
    centres = torch.arange(table.size, device=table.mask.device, dtype=torch.float32) + 0.5
    return centres[None, None, :], centres[None, :, None]


def _transformed(homography: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    a, b, c, d, e, f, g, h, i = homography
    z = g * x + h * y + i
    z = torch.where(z.abs() < 1e-12, 1e-12, z)
    return (a * x + b * y + c) / z, (d * x + e * y + f) / z


def _opaque(table: ViewTable, plane: int, x: Tensor, y: Tensor) -> Tensor:
    """Whether a plane's mask is opaque at points (V, S, S), given as fractions of its sides."""
    mask = table.mask[:, plane, None, None]
    start = mask.clamp(min=0) * MASK_PX**2
    side = torch.full_like(start, MASK_PX)
    value = _bilinear(table.masks.view(-1, 1), start, (side, side), x * MASK_PX, y * MASK_PX)[..., 0]
    return (value > 127) | (mask < 0)


def _colours(table: ViewTable, atlas: Atlas, plane_index: Tensor) -> Tensor:
    """The colours (V, 3, S, S) of the nearest planes, in [0, 255]."""
    u, v = _centres(table)
    views = torch.arange(len(plane_index), device=u.device)[:, None, None]
    shown = views * table.mask.shape[1] + plane_index.clamp(min=0)  # (V, S, S) rows of the flattened table
    x, y = _transformed(table.texture_from_image.flatten(0, 1)[shown].unbind(-1), u, v)
    width, height = table.texture_size.flatten(0, 1)[shown].unbind(-1)
    x, y = (_mirrored(place.clamp(-1e7, 1e7), side) for place, side in ((x, width), (y, height)))
    a, b, c, d, e, f = table.level_from_texture.flatten(0, 1)[shown].unbind(-1)
    level_height, level_width = table.level_shape.flatten(0, 1)[shown].unbind(-1)
    start = table.level_start.flatten()[shown]
    place = a * x + b * y + c, d * x + e * y + f
    rgb = _bilinear(atlas.texels, start, (level_height, level_width), *place)
    return torch.where((plane_index < 0)[..., None], float(BACKGROUND_GREY), rgb).permute(0, 3, 1, 2)


def _mirrored(place: Tensor, side: Tensor) -> Tensor:
    """Reflect coordinates into [0, side], as between two mirrors."""
    return side - (side - place.remainder(2 * side)).abs()


def _bilinear(texels: Tensor, start: Tensor, shape: tuple[Tensor, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Sample texels (..., C) as float32 at COLMAP pixels of rasters that begin at `start`; borders are repeated."""
    height, width = shape
    x, y = colmap_to_hloc(torch.stack((x, y), dim=-1)).unbind(-1)
    x, y = torch.minimum(x.clamp(min=0), width - 1), torch.minimum(y.clamp(min=0), height - 1)
    left, top = x.floor().long(), y.floor().long()
    right, bottom = torch.minimum(left + 1, width - 1), torch.minimum(top + 1, height - 1)
    along, down = (x - left)[..., None], (y - top)[..., None]
    upper, lower = (
        torch.lerp(texels[start + row * width + left].float(), texels[start + row * width + right].float(), along)
        for row in (top, bottom)
    )
    return torch.lerp(upper, lower, down)
