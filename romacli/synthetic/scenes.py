"""Textured planes seen by pinhole cameras: pictures, per-pixel depth and exact warps between views.

Pixel coordinates are COLMAP's: (0.5, 0.5) is the centre of the top-left pixel. Camera axes are x right, y down,
z forward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from romacli.geometry.reprojection import reproject

Array = NDArray[np.float64]
Image = np.ndarray  # uint8; (H, W, 3) RGB, or (H, W) as a mask

BACKGROUND_GREY = 127
MIN_DEPTH = 0.05  # bounded planes with a corner nearer than this are not drawn
MAX_INVERSE_DEPTH = 20.0
MIN_INVERSE_DEPTH = 1e-6
DEPTH_TOLERANCE = 0.985  # of the occluder's inverse depth, as the z-buffer is read at the nearest pixel
SMALLEST_LEVEL_PX = 48


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: x ~ K (R X + t).

    Attributes:
        K: (3, 3) intrinsics in COLMAP pixels.
        R, t: (3, 3) and (3,), camera from world.
        size: (width, height) of its image in px.
    """

    K: Array
    R: Array
    t: Array
    size: tuple[int, int]


@dataclass(frozen=True)
class Excerpt:
    """The origin of a texture in a pool of pictures.

    Attributes:
        picture: its index.
        picture_from_texture: (3, 3) affine, pixels of the texture to pixels of the whole picture.
    """

    picture: int
    picture_from_texture: Array


@dataclass(frozen=True)
class TexturedPlane:
    """A textured parallelogram in space.

    Attributes:
        texture: (h, w, 3) uint8 RGB.
        origin: (3,) position of the texture's top-left corner.
        edge_x, edge_y: (3,) from there along the texture's width and height.
        mask: (h', w') uint8 over the same parallelogram, opaque above 127; None is opaque everywhere.
        endless: the texture continues beyond the parallelogram, repeatedly mirrored.
        excerpt: the origin of the texture, for renderers that already have the pictures.
        only_in: the only picture of a pair that shows it, 0 or 1; None for both.
    """

    texture: Image
    origin: Array
    edge_x: Array
    edge_y: Array
    mask: Image | None = None
    endless: bool = False
    excerpt: Excerpt | None = None
    only_in: int | None = None

    @cached_property
    def levels(self) -> tuple[Image, ...]:
        """The texture at full, half, quarter ... resolution, to avoid aliasing when it is shrunk."""
        levels = [self.texture]
        while min(levels[-1].shape[:2]) > SMALLEST_LEVEL_PX:
            levels.append(cv2.pyrDown(levels[-1]))
        return tuple(levels)

    @property
    def world_from_texture(self) -> Array:
        """(3, 3) matrix from homogeneous texture pixels to points in space."""
        height, width = self.texture.shape[:2]
        return np.column_stack((self.edge_x / width, self.edge_y / height, self.origin))

    @property
    def normal(self) -> Array:
        """(3,) normal of the plane {X : normal . X = normal . origin}; not of unit length."""
        return np.cross(self.edge_x, self.edge_y)


class View(NamedTuple):
    """A camera's rendered view.

    Attributes:
        rgb: (H, W, 3) uint8, grey where there is no plane.
        plane_index: (H, W) int32, the plane at each pixel, -1 for none.
        inverse_depth: (H, W) float32, 1 / z in the camera's frame, 0 where there is no plane.
    """

    rgb: Image
    plane_index: NDArray[np.int32]
    inverse_depth: NDArray[np.float32]


def render_view(planes: Sequence[TexturedPlane], camera: Camera, picture: int | None = None) -> View:
    """Return a camera's picture of the planes, with the plane and inverse depth at each pixel.

    Args:
        planes: of the scene.
        camera: in the planes' frame.
        picture: which of a pair it is, 0 or 1; None draws all planes.
    """
    width, height = camera.size
    view = _empty_view(camera, np.full((height, width, 3), BACKGROUND_GREY, np.uint8))
    for index, region, candidate, nearer in _in_front(planes, camera, picture, view):
        colour, opaque = _draw(planes[index], camera, region)
        if opaque is not None:
            nearer &= opaque
        cv2.copyTo(colour, nearer.astype(np.uint8), view.rgb[region])
        view.inverse_depth[region][nearer] = candidate[nearer]
        view.plane_index[region][nearer] = index
    return view


def outline(planes: Sequence[TexturedPlane], camera: Camera, picture: int | None = None) -> View:
    """Return a view as `render_view` does, but without colours and with masked planes whole, in much less time."""
    view = _empty_view(camera, np.zeros((0, 0, 3), np.uint8))
    for index, region, candidate, nearer in _in_front(planes, camera, picture, view):
        if not planes[index].endless:
            nearer &= _inside(planes[index], camera, region)
        view.inverse_depth[region][nearer] = candidate[nearer]
        view.plane_index[region][nearer] = index
    return view


def _empty_view(camera: Camera, rgb: Image) -> View:
    shape = camera.size[::-1]
    return View(rgb, np.full(shape, -1, np.int32), np.zeros(shape, np.float32))


def _in_front(
    planes: Sequence[TexturedPlane], camera: Camera, picture: int | None, view: View
) -> Iterator[tuple[int, tuple[slice, slice], NDArray[np.float32], NDArray[np.bool_]]]:
    """Each plane that may hide a part of the view as it is by then: its index, rows and columns, its inverse depth
    there, and where it is nearer."""
    for index, plane in enumerate(planes):
        region = region_of(plane, camera, picture)
        if region is None:
            continue
        candidate = _plane_inverse_depth(plane, camera, region)
        drawn = np.maximum(view.inverse_depth[region], MIN_INVERSE_DEPTH)
        nearer = (candidate > drawn) & (candidate < MAX_INVERSE_DEPTH)
        if nearer.any():
            yield index, region, candidate, nearer


def warp_between(
    camera_A: Camera, view_A: View, camera_B: Camera, view_B: View
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the target of each pixel of A in B, and whether it is visible there.

    Returns:
        warp: (H, W, 2) float32 x, y in px of B; meaningless (but finite) where A shows no plane.
        visible: (H, W) bool, inside B's image and not behind another plane there.
    """
    rotation = camera_B.R @ camera_A.R.T
    translation = camera_B.t - rotation @ camera_A.t
    warp, inverse_depth_B = reproject(
        view_A.inverse_depth, camera_A.K, camera_B.K, rotation=rotation, translation=translation
    )
    width, height = camera_B.size
    inside = (inverse_depth_B > 0) & (warp > 0).all(axis=-1) & (warp[..., 0] < width) & (warp[..., 1] < height)
    column = np.clip(warp[..., 0], 0, width - 1).astype(np.int32)
    row = np.clip(warp[..., 1], 0, height - 1).astype(np.int32)
    same_plane = view_B.plane_index[row, column] == view_A.plane_index
    unoccluded = inverse_depth_B > view_B.inverse_depth[row, column] * DEPTH_TOLERANCE
    limit = 4 * max(camera_B.size)
    return np.clip(warp, -limit, limit, dtype=np.float32), inside & (same_plane | unoccluded)


def pixel_centres(size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return x (1, W) and y (H, 1) of the pixel centres of an image of `size` (width, height)."""
    width, height = size
    x = np.arange(width, dtype=np.float32)[None] + np.float32(0.5)
    return x, np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)


def image_from_texture(plane: TexturedPlane, camera: Camera) -> Array:
    """Return the homography (3, 3) from texture px to image px."""
    matrix = camera.R @ plane.world_from_texture
    matrix[:, 2] += camera.t
    return camera.K @ matrix


def _corners(plane: TexturedPlane, *, inset: float = 0.0) -> Array:
    height, width = plane.texture.shape[:2]
    x, y = np.array([inset, 1 - inset]) * width, np.array([inset, 1 - inset]) * height
    return np.array([[x[0], y[0]], [x[1], y[0]], [x[0], y[1]], [x[1], y[1]]])


def _apply(homography: np.ndarray, points: np.ndarray) -> Array:
    projected = points @ homography[:, :2].T + homography[:, 2]
    return projected[:, :2] / projected[:, 2:]


def region_of(plane: TexturedPlane, camera: Camera, picture: int | None = None) -> tuple[slice, slice] | None:
    """Return the rows and columns a plane may cover, or None if it is out of sight or only in the other picture."""
    width, height = camera.size
    if picture is not None and plane.only_in not in (None, picture):
        return None
    if plane.endless:
        return slice(0, height), slice(0, width)
    homography = image_from_texture(plane, camera)
    corners = _corners(plane) @ homography[:, :2].T + homography[:, 2]
    if corners[:, 2].min() < MIN_DEPTH:
        return None
    corners = corners[:, :2] / corners[:, 2:]
    left, top = np.clip(np.floor(corners.min(axis=0)) - 1, 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, (width, height)).astype(int)
    if left >= right or top >= bottom:
        return None
    return slice(top, bottom), slice(left, right)


def inverse_depth_of(plane: TexturedPlane, camera: Camera) -> NDArray[np.float32]:
    """Return (a, b, c): a plane's inverse depth at image px (x, y) is a x + b y + c."""
    normal = camera.R @ plane.normal
    offset = float(plane.normal @ plane.origin + normal @ camera.t)
    offset = offset if abs(offset) > 1e-9 else 1e-9
    return (normal @ np.linalg.inv(camera.K) / offset).astype(np.float32)


def _plane_inverse_depth(plane: TexturedPlane, camera: Camera, region: tuple[slice, slice]) -> NDArray[np.float32]:
    a, b, c = inverse_depth_of(plane, camera)
    u, v = pixel_centres(camera.size)
    return a * u[:, region[1]] + (b * v[region[0]] + c)


def _inside(plane: TexturedPlane, camera: Camera, region: tuple[slice, slice]) -> NDArray[np.bool_]:
    """Where a region of the image shows the parallelogram of a plane, at the pixels' centres."""
    rows, columns = region
    x, y = pixel_centres(camera.size)
    to_texture = np.linalg.inv(image_from_texture(plane, camera))
    u, v, w = (a * x[:, columns] + b * y[rows] + c for a, b, c in to_texture)
    height, width = plane.texture.shape[:2]
    u, v = u / w, v / w
    return (u > 0) & (u < width) & (v > 0) & (v < height)


def _draw(plane: TexturedPlane, camera: Camera, region: tuple[slice, slice]) -> tuple[Image, NDArray[np.bool_] | None]:
    """The plane's colours in a region of the image, and where it is opaque (None: everywhere)."""
    rows, columns = region
    shape = (columns.stop - columns.start, rows.stop - rows.start)
    to_region = np.array([[1, 0, -columns.start], [0, 1, -rows.start], [0, 0, 1.0]])
    homography = to_region @ image_from_texture(plane, camera)
    level = plane.levels[_level(plane, homography, shape)]
    border = cv2.BORDER_REFLECT if plane.endless else cv2.BORDER_REPLICATE
    colour = cv2.warpPerspective(
        level, _for_opencv(homography, plane, level), shape, flags=cv2.INTER_LINEAR, borderMode=border
    )
    if plane.endless and plane.mask is None:
        return colour, None
    mask = plane.mask if plane.mask is not None else np.full((64, 64), 255, np.uint8)
    opacity = cv2.warpPerspective(mask, _for_opencv(homography, plane, mask), shape, flags=cv2.INTER_LINEAR)
    return colour, opacity > 127


def _for_opencv(homography: Array, plane: TexturedPlane, raster: Image) -> Array:
    """Adapt texture px -> image px to a raster of other resolution and to OpenCV's integer pixel centres."""
    height, width = plane.texture.shape[:2]
    x, y = width / raster.shape[1], height / raster.shape[0]
    from_raster = np.array([[x, 0, x / 2], [0, y, y / 2], [0, 0, 1.0]])
    to_opencv = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]])
    return to_opencv @ homography @ from_raster


def _level(plane: TexturedPlane, homography: Array, shape: tuple[int, int]) -> int:
    """The pyramid level whose texels are about as large as the pixels they cover."""
    level = np.round(np.log2(max(texels_per_pixel(plane, homography, shape), 1e-3)))
    return int(np.clip(level, 0, len(plane.levels) - 1))


def texels_per_pixel(plane: TexturedPlane, homography: Array, shape: tuple[int, int]) -> float:
    """Return the median number of texels per pixel side where an image shows the plane.

    Args:
        homography: (3, 3) texture px to image px.
        shape: (width, height) of the drawn part of the image.
    """
    if plane.endless:
        width, height = shape
        seen = np.array([[0.5, 0.5], [0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]) * (width, height)
    else:
        seen = _apply(homography, _corners(plane, inset=0.25))
    inverse = np.linalg.inv(homography)
    origin = _apply(inverse, seen)
    dx, dy = (_apply(inverse, seen + step) - origin for step in ((1, 0), (0, 1)))
    return float(np.sqrt(np.median(np.abs(dx[:, 0] * dy[:, 1] - dx[:, 1] * dy[:, 0]))))
