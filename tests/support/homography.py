"""A matcher that knows the answer: photographs of one plane with given homographies. For tests and timing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from romacli.geometry.coordinates import from_colmap_pixels
from romacli.matchers.compact import CompactOptions, compact
from romacli.types import CompactWarp, DenseMatch, Features, PairResult, PreparedImage, Rejected


def image_digest(image: np.ndarray) -> str:
    """A digest of an image's pixels, by which the matcher looks up its homography."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def same(a: PairResult, b: PairResult) -> bool:
    """Whether two results are equal bit by bit."""
    return type(a) is type(b) and all(np.array_equal(value, getattr(b, name)) for name, value in vars(a).items())


class HomographyMatcher:
    """Warps between photographs from plane_from_image, a 3x3 matrix in COLMAP pixels for each image digest."""

    name = "homography"
    batch_size = 1

    def __init__(self, plane_from_image: Mapping[str, np.ndarray], *, nodes: int = 64) -> None:
        self._plane_from_image = plane_from_image
        self._nodes = nodes
        self.images_encoded = 0

    @property
    def settings(self) -> dict[str, Any]:
        return {"model": self.name, "nodes": self._nodes}

    def prepare(self, image: np.ndarray) -> PreparedImage:
        matrix = torch.from_numpy(np.asarray(self._plane_from_image[image_digest(image)], np.float64))
        return PreparedImage({"plane_from_image": matrix[None]}, (image.shape[1], image.shape[0]))

    def encode(self, images: Sequence[PreparedImage]) -> list[Features]:
        self.images_encoded += len(images)
        return [Features(image.tensors, image.size) for image in images]

    def warp(self, pairs: Sequence[tuple[Features, Features]]) -> list[DenseMatch]:
        return [self._warp(a, b) for a, b in pairs]

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[CompactWarp | Rejected]:
        results = [compact(dense, CompactOptions(nodes=self._nodes)) for dense in self.warp(pairs)]
        return [warp if warp.overlap > 0.02 else Rejected(warp.overlap) for warp in results]

    def _warp(self, a: Features, b: Features) -> DenseMatch:
        warp_AB, certainty_AB = self._direction(a, b)
        warp_BA, certainty_BA = self._direction(b, a)
        return DenseMatch(warp_AB, certainty_AB, warp_BA, certainty_BA, a.size, b.size)

    def _direction(self, a: Features, b: Features) -> tuple[Tensor, Tensor]:
        matrix = torch.linalg.inv(b.tensors["plane_from_image"][0]) @ a.tensors["plane_from_image"][0]
        steps = (torch.arange(self._nodes, dtype=torch.float64) + 0.5) / self._nodes
        y, x = torch.meshgrid(steps * a.size[1], steps * a.size[0], indexing="ij")
        points = torch.stack((x, y, torch.ones_like(x)), -1) @ matrix.T
        warp = from_colmap_pixels(points[..., :2] / points[..., 2:], b.size)
        inside = (warp.abs() < 1).all(-1) & (points[..., 2] > 0)
        return warp.clamp(-1, 1).float(), inside.float()
