"""Quarter turns of images: sizes, points and stored warps between the rotated and the stored frame.

Turns are clockwise. Points are COLMAP pixels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from romacli.geometry.warp import decode_targets, encode_targets
from romacli.types import CompactWarp, Correspondences, Size


def turn_image(image: np.ndarray, turns: int) -> np.ndarray:
    """Rotate an image (H, W, ...) clockwise."""
    # A copy, as a view of a line one pixel wide would count as contiguous with its negative stride.
    return np.rot90(image, -turns).copy() if turns % 4 else image


def turn_size(size: Size, turns: int) -> Size:
    """The (width, height) of an image after rotation."""
    return size if turns % 2 == 0 else (size[1], size[0])


def turn_points_back(points: np.ndarray, size: Size, turns: int) -> np.ndarray:
    """Convert points (..., 2) of a rotated image to the stored image, whose size is given."""
    x, y = points[..., 0], points[..., 1]
    width, height = size
    sides = {0: (x, y), 1: (y, height - x), 2: (width - x, height - y), 3: (width - y, x)}
    return np.stack(sides[turns % 4], axis=-1)


def turn_points(points: np.ndarray, size: Size, turns: int) -> np.ndarray:
    """Convert points (..., 2) of a stored image of this size to the rotated image."""
    return turn_points_back(points, turn_size(size, turns), -turns)


def turn_back(result: CompactWarp, turns_A: int, turns_B: int) -> CompactWarp:
    """Convert the warps between two rotated images to the stored images."""
    if turns_A % 4 == turns_B % 4 == 0:
        return result
    size_A, size_B = turn_size(result.size_A, turns_A), turn_size(result.size_B, turns_B)
    return replace(
        result,
        target_AB=turn_image(_targets_back(result.target_AB, result.size_B, size_B, turns_B), -turns_A),
        weight_AB=turn_image(result.weight_AB, -turns_A),
        target_BA=turn_image(_targets_back(result.target_BA, result.size_A, size_A, turns_A), -turns_B),
        weight_BA=turn_image(result.weight_BA, -turns_B),
        size_A=size_A,
        size_B=size_B,
    )


def turn_correspondences_back(
    points: Correspondences, size_A: Size, turns_A: int, size_B: Size, turns_B: int
) -> Correspondences:
    """Convert point pairs of two rotated images, of these rotated sizes, to the stored images."""
    stored = [
        turn_points_back(xy, turn_size(size, turns), turns).astype(np.float32)
        for xy, size, turns in ((points.keypoints0, size_A, turns_A), (points.keypoints1, size_B, turns_B))
    ]
    return Correspondences(stored[0], stored[1], points.scores)


def _targets_back(steps: np.ndarray, turned: Size, stored: Size, turns: int) -> np.ndarray:
    """Convert stored targets in a rotated image to the stored image, within a step."""
    if turns % 4 == 0:
        return steps
    return encode_targets(turn_points_back(decode_targets(steps, turned), stored, turns), stored)
