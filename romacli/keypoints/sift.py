"""SIFT keypoints of one photograph, with or without descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from romacli.errors import EstimationError
from romacli.geometry.coordinates import hloc_to_colmap
from romacli.types import Keypoints

if TYPE_CHECKING:
    import cv2


def detect_sift(image: np.ndarray, max_keypoints: int, kept: np.ndarray | None = None) -> Keypoints:
    """The strongest SIFT keypoints of a photograph in COLMAP pixels, strongest first, with their response as score.

    A point with several orientations occurs once.

    Args:
        image: (H, W, 3) uint8 RGB. kept: (H, W) bool, the pixels where keypoints may lie; None for all.

    Raises:
        EstimationError: OpenCV fails on the photograph.
    """
    import cv2

    mask = None if kept is None else kept.astype(np.uint8)
    try:
        found = _detector(max_keypoints).detect(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), mask)
    except cv2.error as error:
        raise EstimationError(f"SIFT fails: {' '.join(str(error).split())}") from error
    places = np.array([keypoint.pt for keypoint in found], np.float32).reshape(-1, 2)
    scores = np.array([keypoint.response for keypoint in found], np.float32)
    first = np.unique(places, axis=0, return_index=True)[1]
    kept = first[np.argsort(-scores[first], kind="stable")][:max_keypoints]
    return Keypoints(hloc_to_colmap(places[kept]), scores[kept])


def describe_sift(image: np.ndarray, max_keypoints: int) -> tuple[np.ndarray, np.ndarray]:
    """The strongest SIFT keypoints of a photograph and their descriptors, every orientation a keypoint of its own.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (K, 2) float32 COLMAP pixels; (K, 128) float32 of unit length, square roots of SIFT's.

    Raises:
        EstimationError: OpenCV fails on the photograph.

    Source of the square roots: Arandjelovic and Zisserman, Three things everyone should know, CVPR 2012.
    """
    import cv2

    try:
        found, values = _detector(max_keypoints).detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    except cv2.error as error:
        raise EstimationError(f"SIFT fails: {' '.join(str(error).split())}") from error
    if values is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    places = np.array([keypoint.pt for keypoint in found], np.float32).reshape(-1, 2)
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1e-9)
    return hloc_to_colmap(places), np.sqrt(shares).astype(np.float32)


def _detector(max_keypoints: int) -> cv2.SIFT:
    """OpenCV's SIFT; without precise upscaling its positions are off by a quarter of a pixel."""
    import cv2

    return cv2.SIFT.create(nfeatures=max_keypoints, enable_precise_upscale=True)
