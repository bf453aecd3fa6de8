"""Crops of images, and conversion of stored warps between a crop and its image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from romacli.geometry.warp import cell_centres, decode_targets, encode_targets, warp_fields
from romacli.types import CompactWarp, Size


@dataclass(frozen=True)
class Box:
    """A rectangle of whole px in an image, with its (left, top) corner and (width, height)."""

    left: int
    top: int
    size: Size

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Crop an image (H, W, ...) to the box."""
        width, height = self.size
        return np.ascontiguousarray(image[self.top : self.top + height, self.left : self.left + width])


def halves(size: Size) -> list[Box]:
    """The nine boxes with half the image's sides, a quarter of a side apart."""
    part = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    room = (size[0] - part[0], size[1] - part[1])
    return [Box(room[0] * column // 2, room[1] * row // 2, part) for row in range(3) for column in range(3)]


def uncut(record: CompactWarp, box: Box, size: Size) -> CompactWarp:
    """Convert the warps between A and a crop of B to warps between A and all of B, whose size is given."""
    offset = np.array([box.left, box.top], np.float32)
    inner = warp_fields(record)[1]
    places = cell_centres(record.weight_BA.shape, size) - offset
    sample = inner.at(places.reshape(-1, 2))
    weight_BA = np.ceil(255 * sample.weights).astype(np.uint8).reshape(record.weight_BA.shape)
    targets = decode_targets(record.target_AB, record.size_B) + offset
    shares = [np.count_nonzero(weight) / weight.size for weight in (record.weight_AB, weight_BA)]
    return replace(
        record,
        target_AB=encode_targets(targets, size),
        target_BA=encode_targets(sample.targets, record.size_A).reshape(record.target_BA.shape),
        weight_BA=weight_BA,
        size_B=size,
        overlap=float(np.mean(shares)),
    )


def footprint(record: CompactWarp, margin: float) -> Box | None:
    """The part of B that shows A's content, by an affine fit to the warp; None if it is empty.

    margin: fraction of its sides added on each side, within B.
    """
    used = record.weight_AB > 0
    if np.count_nonzero(used) < 3:
        return None
    places = cell_centres(used.shape, record.size_A)[used].astype(np.float64)
    targets = decode_targets(record.target_AB, record.size_B)[used]
    affine = np.linalg.lstsq(np.column_stack((places, np.ones(len(places)))), targets, rcond=None)[0]
    width, height = record.size_A
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ affine
    low, high = corners.min(axis=0), corners.max(axis=0)
    room = margin * (high - low)
    low = np.maximum(np.floor(low - room), 0).astype(int)
    high = np.minimum(np.ceil(high + room), record.size_B).astype(int)
    if (high <= low).any():
        return None
    return Box(int(low[0]), int(low[1]), (int(high[0] - low[0]), int(high[1] - low[1])))
