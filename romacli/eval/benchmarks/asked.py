"""Adapters of dense matchers for benchmarks: samples of their warps, or the warps themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from romacli.errors import UsageError
from romacli.geometry.turns import turn_image, turn_size
from romacli.matchers.matcher import DenseMatcher
from romacli.matchers.sampling import SampleOptions, sample
from romacli.types import Correspondences, DenseMatch, Features, PreparedImage


class _Asked:
    def __init__(self, matcher: DenseMatcher) -> None:
        self._matcher = matcher
        self.name, self.batch_size = matcher.name, matcher.batch_size
        self.device = getattr(matcher, "device", None)

    @property
    def settings(self) -> dict[str, Any]:
        return self._matcher.settings

    def prepare(self, image: np.ndarray) -> PreparedImage:
        return self._matcher.prepare(image)

    def encode(self, images: Sequence[PreparedImage]) -> list[Features]:
        return self._matcher.encode(images)

    def _warps(self, pairs: Sequence[tuple[Features, Features]]) -> list[DenseMatch]:
        warps = self._matcher.warp(pairs)
        if any(warp.warp_BA is None for warp in warps):
            raise UsageError(
                f"model {self.name} warps in one direction only, and the protocol needs both. Use another matcher."
            )
        return warps


class Sampler(_Asked):
    """A dense matcher that returns a protocol's samples, concatenated."""

    def __init__(self, matcher: DenseMatcher, *, points: int, samples: int = 1) -> None:
        """points: number of points per sample. samples: number of samples per pair."""
        super().__init__(matcher)
        self._points, self._samples = points, samples

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[Any]:
        """Samples of equal length.

        Raises:
            UsageError: the matcher warps in one direction only.
        """
        return [self._drawn(warp, seed) for warp, seed in zip(self._warps(pairs), seeds, strict=True)]

    def _drawn(self, warp: DenseMatch, seed: int) -> Correspondences:
        options = SampleOptions(num_matches=self._points)
        believing = replace(warp, min_certainty=0.0)  # the papers draw by certainty, however low
        drawn = [sample(believing, (seed + number) % 2**63, options) for number in range(self._samples)]
        return Correspondences(
            *(np.concatenate([getattr(one, part) for one in drawn]) for part in ("keypoints0", "keypoints1", "scores"))
        )


class Quarters(_Asked):
    """A dense matcher that returns whole warps, with the second picture rotated by each of some quarter turns.

    Every picture is encoded at all rotations, as any may be second.
    """

    def __init__(self, matcher: DenseMatcher, quarters: Sequence[int] = (0,)) -> None:
        """quarters: clockwise; the first is 0."""
        super().__init__(matcher)
        self._quarters = quarters

    def prepare(self, image: np.ndarray) -> PreparedImage:
        turned = {turns: self._matcher.prepare(turn_image(image, turns)) for turns in self._quarters}
        tensors = {f"{turns}{name}": value for turns, one in turned.items() for name, value in one.tensors.items()}
        return PreparedImage(tensors, turned[0].size)

    def encode(self, images: Sequence[PreparedImage]) -> list[Features]:
        found: list[dict[str, torch.Tensor]] = [{} for _ in images]
        for turns in self._quarters:
            encoded = self._matcher.encode([PreparedImage(*_at(turns, image)) for image in images])
            for tensors, features in zip(found, encoded, strict=True):
                tensors.update((f"{turns}{name}", value) for name, value in features.tensors.items())
        return [Features(tensors, image.size) for tensors, image in zip(found, images, strict=True)]

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[Any]:
        """The warps of each pair, one per rotation, between the unrotated pictures.

        Raises:
            UsageError: the matcher warps in one direction only.
        """
        turned = [
            [
                upright(warps, turns)
                for warps in self._warps([(Features(*_at(0, a)), Features(*_at(turns, b))) for a, b in pairs])
            ]
            for turns in self._quarters
        ]
        return [list(warps) for warps in zip(*turned, strict=True)]


def _at(turns: int, kept: PreparedImage | Features) -> tuple[dict[str, torch.Tensor], tuple[int, int]]:
    tensors = {name[1:]: value for name, value in kept.tensors.items() if name[0] == str(turns)}
    return tensors, turn_size(kept.size, turns)


def upright(match: DenseMatch, turns: int) -> DenseMatch:
    """Convert warps to and from a picture rotated clockwise to those of the unrotated picture."""
    x, y = match.warp_AB.unbind(-1)
    assert match.warp_BA is not None
    assert match.certainty_BA is not None
    return replace(
        match,
        warp_AB=torch.stack(((x, y), (y, -x), (-x, -y), (-y, x))[turns], -1),
        warp_BA=torch.rot90(match.warp_BA, turns),
        certainty_BA=torch.rot90(match.certainty_BA, turns),
        size_B=turn_size(match.size_B, turns),
        precision_AB=None,
        precision_BA=None,
    )
