"""Matchers that know the exact warps of rendered images, and one that shuffles them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from support.homography import image_digest
from torch import Tensor

from romacli.geometry.coordinates import from_colmap_pixels
from romacli.matchers.compact import CompactOptions, compact
from romacli.synthetic.scenes import Camera, TexturedPlane, render_view, warp_between
from romacli.types import Correspondences, DenseMatch, Features, PairResult, PreparedImage, Rejected


class SceneMatcher:
    """Exact warps between images of rendered scenes, looked up by their digests."""

    name = "truth"
    batch_size = 1

    def __init__(self) -> None:
        self._scenes: list[tuple[list[TexturedPlane], Camera]] = []
        self._number: dict[str, int] = {}
        self._directions: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._view = cache(lambda number: render_view(*self._scenes[number]))
        self.images_encoded = 0

    def learn(self, image: np.ndarray, planes: list[TexturedPlane], camera: Camera) -> None:
        self._number[image_digest(image)] = len(self._scenes)
        self._scenes.append((planes, camera))

    @property
    def settings(self) -> dict[str, Any]:
        return {"model": self.name}

    def prepare(self, image: np.ndarray) -> PreparedImage:
        number = torch.tensor([self._number[image_digest(image)]])
        return PreparedImage({"number": number}, (image.shape[1], image.shape[0]))

    def encode(self, images: Sequence[PreparedImage]) -> list[Features]:
        self.images_encoded += len(images)
        return [Features(image.tensors, image.size) for image in images]

    def warp(self, pairs: Sequence[tuple[Features, Features]]) -> list[DenseMatch]:
        return [DenseMatch(*self._direction(a, b), *self._direction(b, a), a.size, b.size) for a, b in pairs]

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[PairResult]:
        return checked(self.warp(pairs))

    def _direction(self, a: Features, b: Features) -> tuple[Tensor, Tensor]:
        numbers = int(a.tensors["number"]), int(b.tensors["number"])
        if numbers not in self._directions:
            (_, camera), (_, other) = (self._scenes[number] for number in numbers)
            warp, visible = warp_between(camera, self._view(numbers[0]), other, self._view(numbers[1]))
            warp = from_colmap_pixels(torch.from_numpy(warp), b.size)
            self._directions[numbers] = warp, torch.from_numpy(visible).float()
        return self._directions[numbers]


def checked(matches: Sequence[DenseMatch]) -> list[PairResult]:
    """Warps as a job stores them; pairs with little overlap are rejected."""
    found = [compact(match, CompactOptions(nodes=64)) for match in matches]
    return [warp if warp.overlap > 0.02 else Rejected(warp.overlap) for warp in found]


class Shuffled:
    """The warps of another matcher with their targets permuted."""

    name = "truth"
    batch_size = 1

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def __getattr__(self, name: str) -> Any:
        return getattr(self._matcher, name)

    def warp(self, pairs: Sequence[tuple[Features, Features]]) -> list[DenseMatch]:
        return [self._torn(match) for match in self._matcher.warp(pairs)]

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[PairResult]:
        return checked(self.warp(pairs))

    def _torn(self, match: DenseMatch) -> DenseMatch:
        torn = {}
        for side in ("AB", "BA"):
            warp, certain = getattr(match, f"warp_{side}").clone(), getattr(match, f"certainty_{side}") > 0
            targets = warp[certain]
            warp[certain] = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))]
            torn[f"warp_{side}"] = warp
        return replace(match, **torn)


class Points:
    """A keypoint matcher: a given number of exact point pairs from the warps of a dense matcher."""

    name = "truth"
    batch_size = 1

    def __init__(self, matcher: Any, count: int) -> None:
        self.prepare, self.encode, self._warp, self._count = matcher.prepare, matcher.encode, matcher.warp, count
        self.settings = matcher.settings

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[PairResult]:
        return [self._some(match) for match in self._warp(pairs)]

    def _some(self, match: DenseMatch) -> Correspondences:
        rows, columns = np.nonzero(match.certainty_AB.numpy())
        some = np.linspace(0, len(rows) - 1, self._count).astype(int)
        cell = np.array(match.size_A, np.float32) / match.certainty_AB.shape[::-1]
        here = ((np.column_stack((columns, rows))[some] + 0.5) * cell).astype(np.float32)
        there = (match.warp_AB.numpy()[rows, columns][some] + 1) * np.array(match.size_B, np.float32) / 2
        return Correspondences(here, there, np.ones(self._count, np.float32))
