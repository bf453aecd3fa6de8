"""Whether two photographs look alike at places related by a warp, by patches of small copies."""

from __future__ import annotations

import cv2
import numpy as np

from romacli.types import Size

from .lattice import Lattice

# Pixels of the small copies per lattice cell, along each side.
_CELL_PX = 3
# Side of a patch, and search radius around the target of the warp, in px of the copies.
_PATCH_PX, _REACH_PX = 9, 1
# Variance of a channel due to noise, in squared grey levels: patches with little more correlate with nothing.
_NOISE = 6.0


def copy_size(lattice: Lattice) -> Size:
    """Width and height of a small copy."""
    return lattice.columns * _CELL_PX, lattice.rows * _CELL_PX


def small_copy(image: np.ndarray, lattice: Lattice) -> np.ndarray:
    """A photograph (H, W, 3) uint8 of any size, reduced to a few pixels per lattice cell."""
    return np.asarray(cv2.resize(image, copy_size(lattice), interpolation=cv2.INTER_AREA))


def likeness(one: np.ndarray, other: np.ndarray, lattice: Lattice, targets: np.ndarray) -> np.ndarray:
    """(count,) correlation in [-1, 1] of the patch around each place with the best one near its target.

    Invariant to gain and offset of each channel over a patch.

    Args:
        one, other: small copies. lattice: of the first. targets: (count, 2) cells of the second, smooth over the first.
    """
    there = cv2.resize(targets.reshape(lattice.rows, lattice.columns, 2).astype(np.float32), one.shape[1::-1])
    x, y = np.moveaxis(there * _CELL_PX - np.float32(0.5), -1, 0)
    here = one.astype(np.float32)
    seen = cv2.remap(other, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    (mean, power), (seen_mean, seen_power) = _moments(here), _moments(seen)
    seen, seen_mean, seen_power = map(_bordered, (seen, seen_mean, seen_power))
    best, middle = np.full(lattice.count, -1.0, np.float32), slice(_CELL_PX // 2, None, _CELL_PX)
    height, width = power.shape
    for down in range(2 * _REACH_PX + 1):
        for across in range(2 * _REACH_PX + 1):
            rows, columns = slice(down, down + height), slice(across, across + width)
            product = _averaged(_product(here, seen[rows, columns]))[middle, middle]
            product -= _product(mean[middle, middle], seen_mean[rows, columns][middle, middle])
            spread = np.sqrt(power[middle, middle] * seen_power[rows, columns][middle, middle])
            best = np.maximum(best, (product / spread).ravel())
    return best


def _moments(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (H, W, 3) of the patch around each pixel, and its variance (H, W) with noise, of all channels."""
    mean = _averaged(image)
    variance = _averaged(_product(image, image)) - _product(mean, mean)
    return mean, np.maximum(variance, 0) + image.shape[2] * _NOISE


def _product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(H, W) of two images (H, W, 3), summed over the channels."""
    return np.asarray(cv2.transform(cv2.multiply(one, other), np.ones((1, 3), np.float32)))


def _bordered(values: np.ndarray) -> np.ndarray:
    """Pad by the search radius on all sides."""
    around = (_REACH_PX, _REACH_PX)
    return np.pad(values, (around, around, (0, 0))[: values.ndim], mode="edge")


def _averaged(values: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.blur(values, (_PATCH_PX, _PATCH_PX), borderType=cv2.BORDER_REFLECT))
