"""SIFT keypoints of one photograph, for matching through warps: places, no descriptors. Knows no files."""

from __future__ import annotations

import numpy as np

from romacli.errors import EstimationError
from romacli.geometry.coordinates import hloc_to_colmap
from romacli.types import Keypoints


def detect_sift(image: np.ndarray, max_keypoints: int, kept: np.ndarray | None = None) -> Keypoints:
    """The strongest SIFT keypoints of a photograph in COLMAP pixels, strongest first, with their response as score.

    A place that SIFT gives several orientations is there once. Needs no more than OpenCV.

    Args:
        image: (H, W, 3) uint8 RGB. kept: (H, W) bool, the pixels where keypoints may lie; None for all.

    Raises:
        EstimationError: OpenCV fails on the photograph.
    """
    import cv2

    # Without precise upscaling OpenCV's places are a quarter of a pixel off.
    detector = cv2.SIFT.create(nfeatures=max_keypoints, enable_precise_upscale=True)
    mask = None if kept is None else kept.astype(np.uint8)
    try:
        found = detector.detect(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), mask)
    except cv2.error as error:
        raise EstimationError(f"SIFT fails: {' '.join(str(error).split())}") from error
    places = np.array([keypoint.pt for keypoint in found], np.float32).reshape(-1, 2)
    scores = np.array([keypoint.response for keypoint in found], np.float32)
    first = np.unique(places, axis=0, return_index=True)[1]
    kept = first[np.argsort(-scores[first], kind="stable")][:max_keypoints]
    return Keypoints(hloc_to_colmap(places[kept]), scores[kept])
