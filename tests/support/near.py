"""A matcher of photographs of a plane that finds nothing where their scales differ too much."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from support.homography import HomographyMatcher

from romacli.geometry.warp import cell_centres
from romacli.types import CompactWarp, Features, PreparedImage, Rejected

SIZE = (240, 160)
PLANE = 400.0  # side length, in units of 1/255 grey level
FARTHEST = 2.2  # ratio of scales that the matcher bridges


class NearMatcher(HomographyMatcher):
    """Reads from colours where in the plane a photograph was taken, and finds nothing if scales differ too much."""

    coarse_batch_size = 1

    def __init__(self) -> None:
        super().__init__({})

    def prepare(self, image: np.ndarray) -> PreparedImage:
        height, width = image.shape[:2]
        centres = cell_centres((height, width), (width, height)).reshape(-1, 2)
        affine = np.linalg.lstsq(
            np.column_stack((centres, np.ones(len(centres)))), image[..., :2].reshape(-1, 2) * PLANE / 255, rcond=None
        )[0].T
        matrix = torch.from_numpy(np.vstack((affine, [0, 0, 1])))
        return PreparedImage({"plane_from_image": matrix[None]}, (width, height))

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[CompactWarp | Rejected]:
        return [result if self._near(*pair) else Rejected(0.01) for pair, result in self._found(pairs, seeds)]

    def overlap(self, pairs: Sequence[tuple[Features, Features]]) -> list[float]:
        return [
            result.overlap if self._near(*pair) else 0.05 * (result.overlap > 0)
            for pair, result in self._found(pairs, [0] * len(pairs))
        ]

    def encode_coarse(self, images: Sequence[PreparedImage]) -> list[Features]:
        return [Features(image.tensors, image.size) for image in images]

    def describe(self, images: Sequence[PreparedImage]) -> np.ndarray:
        return np.ones((len(images), 1), np.float32)

    def _found(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]):
        return zip(pairs, super().match(list(pairs), list(seeds)), strict=True)

    def _near(self, a: Features, b: Features) -> bool:
        """Whether their contents have about the same size when each is stretched to a square."""
        extents = [float(f.tensors["plane_from_image"][0, 0, 0]) * f.size[0] for f in (a, b)]
        return max(extents) / min(extents) < FARTHEST


def photograph(path: Path, centre: tuple[float, float], across: float) -> np.ndarray:
    """An image whose colours encode positions in the plane; returns plane_from_image."""
    per_px = across / SIZE[0]
    matrix = np.array([[per_px, 0, centre[0] - across / 2], [0, per_px, centre[1] - per_px * SIZE[1] / 2], [0, 0, 1]])
    plane = cell_centres(SIZE[::-1], SIZE) * per_px + matrix[:2, 2]
    levels = np.clip(np.rint(np.dstack((plane, plane[..., :1])) * 255 / PLANE), 0, 255).astype(np.uint8)
    cv2.imwrite(str(path), levels[..., ::-1])
    return matrix
