"""A photograph as patches are read from it: grey, a little smoothed, at halving resolutions."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from romacli.types import Size

# Enough for bilinear reading between pixels to hold; noise of neighbouring pixels is then correlated over so many.
SMOOTHING_PX = 0.8
CORRELATED_PX = 4 * np.pi * SMOOTHING_PX**2
_SEED_SIGMA = 4.5
_CHUNK = 1024
_CLIPPED = np.array([0.006, 0.994])
# Up to so long a side the places of warps are within reach at full resolution.
_ONE_LEVEL_SIDE = 4096
# OpenCV reads between the pixels of no longer ones.
LONGEST_SIDE = 2**15 - 1


def levels_of(size: Size) -> int:
    """How many resolutions a photograph of a size (width, height) asks for."""
    return 1 + round(np.log2(max(1.0, max(size) / _ONE_LEVEL_SIDE)))


@dataclass(frozen=True)
class Patches:
    """Where n square patches are read: up to `half` steps from their centres, side = 2 half + 1 samples each way.

    centres: (n, 2) COLMAP px; shears: (n, 2, 2) px per step across and down.
    """

    centres: np.ndarray
    shears: np.ndarray
    half: int


@dataclass(frozen=True)
class Photograph:
    """A photograph prepared.

    levels: (H, W) float32 grey at full, half, quarter ... resolution; kept: (H, W) uint8, 0 where a sample would take
    in masked pixels, or None; black, white: greys at or beyond which pixels may be clipped.
    """

    # Of both fields, for each px of the photograph.
    BYTES_PER_PX: ClassVar[int] = 7

    levels: tuple[np.ndarray, ...]
    kept: np.ndarray | None = None
    black: float = -np.inf
    white: float = np.inf

    @classmethod
    def prepare(cls, grey: np.ndarray, levels: int, kept: np.ndarray | None = None) -> Photograph:
        """Prepare a photograph for `levels` resolutions.

        Args:
            grey: (H, W), of 8 or 16 bits or floating; any scale. kept: (H, W) bool, the pixels that may be read.
        """
        pyramid = [cv2.GaussianBlur(grey.astype(np.float32), (0, 0), SMOOTHING_PX)]
        for _ in range(levels - 1):
            height, width = pyramid[-1].shape
            half = max(width // 2, 1), max(height // 2, 1)
            smaller = cv2.resize(pyramid[-1], half, interpolation=cv2.INTER_AREA)
            pyramid.append(cv2.GaussianBlur(smaller, (0, 0), SMOOTHING_PX / 2))
        black, white = _CLIPPED * np.iinfo(grey.dtype).max if grey.dtype.kind == "u" else (-np.inf, np.inf)
        if kept is None:
            return cls(tuple(pyramid), None, black, white)
        # As far as smoothing and the gaps between samples reach at the coarsest level.
        reach = np.ones((2 ** (levels + 2) + 1,) * 2, np.uint8)
        return cls(tuple(pyramid), cv2.erode(kept.astype(np.uint8), reach), black, white)

    def clipped(self, grey: np.ndarray) -> np.ndarray:
        """Which grey values, as read, may be those of clipped pixels; float32, 1 or 0."""
        return ((grey <= self.black) | (grey >= self.white)).astype(np.float32)

    def scale(self, level: int) -> np.ndarray:
        """(2,) px of a level for each px of the photograph, across and down."""
        return np.array(self.levels[level].shape[::-1]) / self.levels[0].shape[::-1]

    def read(self, level: int, patches: Patches) -> np.ndarray:
        """Grey values of patches of a level, (n, side, side) float32; the border continues outside."""
        return _remap(self.levels[level], patches, cv2.INTER_LINEAR)

    def best_near(self, places: np.ndarray, radius: int) -> np.ndarray:
        """The centre of the pixel within `radius` px of each of (n, 2) places where a patch is fixed best, (n, 2)."""
        fixed = _fixedness(self.levels[0])
        if self.kept is not None:
            fixed *= self.kept
        steps = np.arange(-radius, radius + 1)
        offsets = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        offsets = offsets[(offsets**2).sum(axis=1) <= radius**2]
        last = np.array(fixed.shape[::-1]) - 1
        best = np.empty(places.shape)
        for start in range(0, len(places), _CHUNK):
            rows = slice(start, start + _CHUNK)
            near = np.clip(np.floor(places[rows]).astype(int)[:, None] + offsets, 0, last)
            chosen = fixed[near[..., 1], near[..., 0]].argmax(axis=1)
            best[rows] = near[np.arange(len(near)), chosen] + 0.5
        return best

    def holds(self, level: int, patches: Patches) -> np.ndarray:
        """Which of n patches of a level lie in the photograph and outside of its mask; (n,) bool."""
        reach = np.abs(patches.shears).sum(axis=2) * patches.half
        low, high = patches.centres - reach, patches.centres + reach
        inside = np.all((low > 0) & (high < self.levels[level].shape[::-1]), axis=1)
        if self.kept is None:
            return inside
        scale = self.scale(level)
        whole = Patches(patches.centres / scale, patches.shears / scale[:, None], patches.half)
        masked = _remap(self.kept, whole, cv2.INTER_NEAREST) == 0
        return inside & ~np.any(masked, axis=(1, 2))


def _fixedness(grey: np.ndarray) -> np.ndarray:
    """The smaller eigenvalue of the structure tensor around each pixel: how well a patch there is fixed both ways."""
    step = np.array([[-0.5, 0, 0.5]], np.float32)
    across, down = cv2.filter2D(grey, -1, step), cv2.filter2D(grey, -1, step.T)
    # One product after the other, as each takes as much memory as the photograph.
    pairs = ((across, across), (across, down), (down, down))
    xx, xy, yy = (cv2.GaussianBlur(one * other, (0, 0), _SEED_SIGMA) for one, other in pairs)
    del across, down, pairs
    return (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)


def _remap(image: np.ndarray, patches: Patches, interpolation: int) -> np.ndarray:
    side = 2 * patches.half + 1
    if not len(patches.centres):
        return np.zeros((0, side, side), image.dtype)
    affine = np.concatenate((patches.shears, patches.centres[..., None] - 0.5), axis=2).astype(np.float32)
    # One product for each axis: their samples have to lie together.
    x, y = affine[:, 0] @ _grid(patches.half), affine[:, 1] @ _grid(patches.half)
    return cv2.remap(image, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE).reshape(-1, side, side)


@functools.cache
def _grid(half: int) -> np.ndarray:
    """Steps across, steps down and ones, (3, side²) float32."""
    steps = np.arange(-half, half + 1, dtype=np.float32)
    across, down = np.meshgrid(steps, steps)
    return np.stack((across, down, np.ones_like(across))).reshape(3, -1)
