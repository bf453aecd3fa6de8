from __future__ import annotations

import numpy as np
import pytest

from romacli.keypoints.sift import detect_sift


def blobs(centres: np.ndarray) -> np.ndarray:
    """Bright round spots on grey, at centres in COLMAP pixels."""
    y, x = np.mgrid[:200, :300] + 0.5
    image = 60 + sum(150 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 4.0**2)) for cx, cy in centres)
    return np.repeat(np.rint(image).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("offset", [0.0, 0.3, 0.7])
def test_keypoints_are_at_the_centres_of_spots_in_colmap_pixels(offset: float) -> None:
    centres = np.array([[60, 50], [150, 120], [240, 70]]) + offset
    found = detect_sift(blobs(centres), 100).xy
    distances = np.linalg.norm(found[:, None] - centres, axis=2)
    assert distances.min(axis=0).max() < 0.1


def test_places_are_there_once_strongest_first_and_no_more_than_asked() -> None:
    image = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    found = detect_sift(image, 50)
    assert 20 < len(found) <= 50
    assert len(np.unique(found.xy, axis=0)) == len(found)
    assert (np.diff(found.scores) <= 0).all()
    assert found.xy.dtype == np.float32


def test_a_blank_photograph_has_none() -> None:
    assert len(detect_sift(np.full((100, 100, 3), 128, np.uint8), 100)) == 0
