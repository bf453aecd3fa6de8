"""Pairs of images by their keypoints' descriptors: each the nearest of the other, in batches, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from romacli.matchers.options import SparseOptions
from romacli.types import Features


class MutualNearest:
    """Matches of keypoints whose descriptors are each the other's most similar."""

    def __init__(self, options: SparseOptions) -> None:
        self._options = options

    @property
    def settings(self) -> dict[str, Any]:
        return {"ratio": self._options.ratio, "min_similarity": self._options.min_similarity}

    def __call__(self, pairs: Sequence[tuple[Features, Features]]) -> list[tuple[Tensor, Tensor]]:
        sides = [[pair[side].tensors["descriptors"][0] for pair in pairs] for side in (0, 1)]
        return mutual_nearest(sides[0], sides[1], ratio=self._options.ratio, least=self._options.min_similarity)


def mutual_nearest(
    first: Sequence[Tensor], second: Sequence[Tensor], *, ratio: float | None = None, least: float | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Rows (M, 2) that are each other's most similar, first rows ascending, and cosines (M,) clipped to [0, 1].

    Args:
        first, second: unit descriptors (N, D) of each pair's images; row i of both lists is pair i.
        ratio: a match's distance is at most so much of that to the second most similar, seen from the first image.
        least: similarity a match has at least.
    """
    counts = [(len(a), len(b)) for a, b in zip(first, second, strict=True)]
    if not all(map(all, counts)):
        return [
            mutual_nearest([a], [b], ratio=ratio, least=least)[0] if len(a) and len(b) else _none()
            for a, b in zip(first, second, strict=True)
        ]
    similarity = _similarity(first, second)
    partner = _most(similarity)
    best = similarity.gather(2, partner[..., None])[..., 0]
    kept = best == similarity.amax(dim=1).gather(1, partner)
    if ratio is not None and similarity.shape[2] > 1:
        two = (2 - 2 * similarity.topk(2, dim=2).values).clamp(min=0).sqrt()
        kept &= two[..., 0] <= ratio * two[..., 1]
    if least is not None:
        kept &= best >= least
    found = []
    for index, (count, _) in enumerate(counts):
        rows = kept[index, :count].nonzero()[:, 0]
        matches, scores = torch.stack([rows, partner[index, rows]], dim=1).cpu(), best[index, rows].clamp(0, 1).cpu()
        first_of = torch.from_numpy(np.unique(matches[:, 1].numpy(), return_index=True)[1]).sort().values  # of equals
        found.append((matches[first_of], scores[first_of]))
    return found


def _most(similarity: Tensor) -> Tensor:
    """The most similar column (P, N) of each row; on a CPU numpy finds it several times as fast."""
    if similarity.device.type != "cpu" or similarity.dtype == torch.bfloat16:
        return similarity.argmax(dim=2)
    return torch.from_numpy(similarity.numpy().argmax(axis=2))


def _similarity(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Cosines (P, N, M) of all pairs; what pads a shorter image is less similar than anything."""
    products = torch.bmm(pad_sequence(list(first), True), pad_sequence(list(second), True).transpose(1, 2))
    for index, (a, b) in enumerate(zip(first, second, strict=True)):
        products[index, len(a) :] = -2
        products[index, :, len(b) :] = -2
    return products


def _none() -> tuple[Tensor, Tensor]:
    return torch.zeros(0, 2, dtype=torch.long), torch.zeros(0)
