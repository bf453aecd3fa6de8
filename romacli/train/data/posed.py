"""Photographs with depth and pose, and the true warps between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from romacli.geometry.coordinates import colmap_to_hloc
from romacli.geometry.reprojection import reproject
from romacli.geometry.turns import turn_image
from romacli.geometry.warp import cell_centres
from romacli.matchers.dense import resize
from romacli.types import Size

DEPTH_TOLERANCE = 0.05  # relative, between the depth predicted in B and B's own; DKM's and RoMa's check
SAME_SURFACE = 1.05  # neighbouring depths within this factor are interpolated, others are not


@dataclass(frozen=True)
class PosedView:
    """A photograph with its geometry.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        depth: (h, w) float32 along the optical axis over the same field of view, 0 where unknown.
        K: (3, 3) intrinsics in COLMAP pixels of the image.
        cam_from_world: (4, 4).
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    K: NDArray[np.float64]
    cam_from_world: NDArray[np.float64]


def quarter_turned(view: PosedView) -> PosedView:
    """Return a view whose image is turned clockwise, by a camera that is rolled accordingly."""
    roll = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    pixels = np.array([[0, -1, view.image.shape[0]], [1, 0, 0], [0, 0, 1]])
    K = pixels @ view.K @ roll[:3, :3].T
    return PosedView(turn_image(view.image, 1), turn_image(view.depth, 1), K, roll @ view.cam_from_world)


@dataclass(frozen=True)
class Window:
    """A part of an image, in px from its top-left corner."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class TrainingView:
    """A view at the training size.

    Attributes:
        image: (1, 3, H, W) uint8 RGB.
        inverse_depth: (H, W) float32, 0 where the depth is unknown.
        K: (3, 3) intrinsics in COLMAP pixels of this image.
        cam_from_world: (4, 4).
    """

    image: Tensor
    inverse_depth: NDArray[np.float32]
    K: NDArray[np.float64]
    cam_from_world: NDArray[np.float64]


def at_size(view: PosedView, window: Window, size: Size) -> TrainingView:
    """Return a window of a view stretched to `size` (width, height), with matching intrinsics and depth."""
    height, width = view.image.shape[:2]
    piece = view.image[window.top : window.top + window.height, window.left : window.left + window.width]
    scale_x, scale_y = size[0] / window.width, size[1] / window.height
    to_size = np.array([[scale_x, 0, -window.left * scale_x], [0, scale_y, -window.top * scale_y], [0, 0, 1]])
    corner = np.array((window.left, window.top), np.float32)
    depth_px = np.array((view.depth.shape[1] / width, view.depth.shape[0] / height), np.float32)
    centres = cell_centres((size[1], size[0]), (window.width, window.height)) + corner
    inverse_depth = inverse_depth_at(view.depth, centres * depth_px)
    return TrainingView(resize(piece, size), inverse_depth, to_size @ view.K, view.cam_from_world)


def inverse_depth_at(depth: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return inverse depths (...) at COLMAP pixels (..., 2) of a depth map; 0 where unknown.

    Bilinear where the four surrounding pixels are on one surface, which is exact on planes; elsewhere that of the
    nearest pixel, which DKM and RoMa use everywhere.
    """
    height, width = depth.shape
    x, y = np.moveaxis(colmap_to_hloc(points), -1, 0)
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    corners = np.stack([depth[row, column] for row in (top, bottom) for column in (left, right)])
    along, down = x - left, y - top
    weights = np.stack(((1 - along) * (1 - down), along * (1 - down), (1 - along) * down, along * down))
    one_surface = (corners.min(axis=0) > 0) & (corners.max(axis=0) < SAME_SURFACE * corners.min(axis=0))
    nearest = depth[np.rint(y).astype(int), np.rint(x).astype(int)]
    between = (weights * _inverse(corners)).sum(axis=0)
    return np.where(one_surface, between, _inverse(nearest)).astype(np.float32)


def warp_from_depth(
    view_A: TrainingView, view_B: TrainingView, *, is_partial: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the target of each pixel of A in B, and whether it is visible there.

    Args:
        is_partial: make the warp NaN where one depth is unknown, so that it is not known what is visible.

    Returns:
        warp: (H, W, 2) float32 COLMAP pixels of B; meaningless where A's depth is unknown.
        visible: (H, W) bool, inside B, with both depths known and equal within 5 %.
    """
    camB_from_camA = view_B.cam_from_world @ np.linalg.inv(view_A.cam_from_world)
    warp, predicted = reproject(
        view_A.inverse_depth, view_A.K, view_B.K, rotation=camB_from_camA[:3, :3], translation=camB_from_camA[:3, 3]
    )
    height, width = view_B.inverse_depth.shape
    inside = (warp > 0).all(axis=-1) & (warp < (width, height)).all(axis=-1)
    place = np.clip(warp, 0, (width - 1, height - 1)).astype(int)
    own = view_B.inverse_depth[place[..., 1], place[..., 0]]
    # |d_predicted - d_own| < tolerance * d_own, in terms of inverse depths.
    agrees = np.abs(own - predicted) < DEPTH_TOLERANCE * predicted
    limit = 4 * max(width, height)
    warp = np.clip(warp, -limit, limit)
    if is_partial:
        warp[(view_A.inverse_depth == 0) | (inside & (predicted > 0) & (own == 0))] = np.nan
    return warp, inside & agrees & (own > 0) & (predicted > 0)


def _inverse(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.divide(1, depth, out=np.zeros_like(depth), where=depth > 0)
