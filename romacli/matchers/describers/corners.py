"""Corners of a photograph, for describers that detect no keypoints of their own."""

from __future__ import annotations

import cv2
import numpy as np

from romacli.types import Keypoints

# Corners are detected at this long side and are at least this far apart there.
LONG_SIDE, LEAST_PX = 1280, 4
_WEAKEST = 1e-4


def corners(image: np.ndarray, count: int | None = None) -> Keypoints:
    """The `count` strongest corners of RGB uint8 (H, W, 3) in sub-pixel COLMAP pixels, strongest first.

    Source: Shi and Tomasi, Good Features to Track; positions are the peaks of parabolas through the neighbours.
    """
    height, width = image.shape[:2]
    scale = min(1.0, LONG_SIDE / max(height, width))
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if scale < 1:
        gray = cv2.resize(gray, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    strength = cv2.cornerMinEigenVal(cv2.GaussianBlur(gray, (0, 0), 1.0), 3, ksize=3)
    side = 2 * LEAST_PX + 1
    # Break ties: no two neighbours within reach are scaled by the same factor.
    order_in_reach = np.arange(side * side, dtype=np.float32).reshape(side, side)
    tiles = [-(-length // side) for length in strength.shape]
    strength = strength * (1 - 1e-6 * np.tile(order_in_reach, tiles)[: strength.shape[0], : strength.shape[1]])
    peaks = (strength == cv2.dilate(strength, np.ones((side, side), np.uint8))) & (strength > 0)
    peaks[[0, -1]] = peaks[:, [0, -1]] = False
    rows, columns = np.nonzero(peaks & (strength > _WEAKEST * strength.max(initial=0)))
    order = np.argsort(-strength[rows, columns], kind="stable")[:count]
    rows, columns = rows[order], columns[order]
    x = columns + _offset(strength[rows, columns - 1], strength[rows, columns], strength[rows, columns + 1])
    y = rows + _offset(strength[rows - 1, columns], strength[rows, columns], strength[rows + 1, columns])
    ratio = (width / gray.shape[1], height / gray.shape[0])
    xy = (np.stack([x, y], axis=1) + 0.5) * ratio
    return Keypoints(xy.astype(np.float32), strength[rows, columns].astype(np.float32))


def _offset(before: np.ndarray, here: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The peak, between -0.5 and 0.5, of the parabola through three values; 0 if they are equal."""
    bend = np.maximum(2 * here - before - after, np.finfo(np.float32).tiny)
    return np.clip((after - before) / (2 * bend), -0.5, 0.5)
