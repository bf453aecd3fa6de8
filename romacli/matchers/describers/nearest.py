"""Mutual nearest neighbours of two images' descriptors, in batches, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from romacli.matchers.options import SparseOptions
from romacli.types import Features

CACHED = ("cpu",)  # devices that process single pairs in tiles that fit their cache
TILE = 128  # rows of a tile: 2 MB at 4,096 columns


class MutualNearest:
    """Matches keypoints whose descriptors are mutually most similar."""

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
    """Mutual best matches: rows (M, 2), ascending by the first, and cosines (M,) clipped to [0, 1].

    Args:
        first, second: unit descriptors (N, D) of each pair's images; row i of both lists is pair i.
        ratio: maximum ratio of a match's distance to that of the second most similar, seen from the first image.
        least: minimum similarity of a match.
    """
    found = []
    for nearest in _nearest(first, second, with_next=ratio is not None):
        kept = nearest.similarity == nearest.of_partner
        if ratio is not None:
            one, other = ((2 - 2 * each).clamp(min=0).sqrt() for each in (nearest.similarity, nearest.following))
            kept &= one <= ratio * other
        if least is not None:
            kept &= nearest.similarity >= least
        rows = kept.nonzero()[:, 0]
        matches, scores = torch.stack([rows, nearest.partner[rows]], dim=1), nearest.similarity[rows].clamp(0, 1)
        first_of = torch.from_numpy(np.unique(matches[:, 1].numpy(), return_index=True)[1]).sort().values  # of ties
        found.append((matches[first_of], scores[first_of]))
    return found


@dataclass(frozen=True)
class _Nearest:
    """For each keypoint of one image (N,), on the CPU: the most similar one in the other, and its similarity.

    following: the similarity of the second best; -2 if not requested. of_partner: the partner's best similarity.
    """

    partner: Tensor
    similarity: Tensor
    following: Tensor
    of_partner: Tensor


def _nearest(first: Sequence[Tensor], second: Sequence[Tensor], *, with_next: bool) -> list[_Nearest]:
    """The nearest neighbours of each pair; all pairs at once, except on CPUs."""
    pairs = list(zip(first, second, strict=True))
    if any(not len(a) or not len(b) for a, b in pairs):
        none = _Nearest(torch.zeros(0, dtype=torch.long), *(torch.zeros(0) for _ in range(3)))
        return [_nearest([a], [b], with_next=with_next)[0] if len(a) and len(b) else none for a, b in pairs]
    if first[0].device.type in CACHED:
        return [_in_tiles(a.float(), b.float(), with_next=with_next) for a, b in pairs]
    similarity = _similarity(first, second)
    partner = similarity.argmax(dim=2)
    of_partner = similarity.amax(dim=1).gather(1, partner)
    two = F.pad(similarity, (0, 1), value=-2).topk(2, dim=2).values
    found = [each.cpu() for each in (partner, two[..., 0], two[..., -1], of_partner)]
    return [_Nearest(*(each[index, : len(a)] for each in found)) for index, (a, _) in enumerate(pairs)]


def _in_tiles(a: Tensor, b: Tensor, *, with_next: bool) -> _Nearest:
    """Multiply tile by tile, reading each while it is in the cache; numpy finds maxima fastest."""
    none = np.float32(-2)
    partner = np.zeros(len(a), np.int64)
    similarity, following, columns = (np.full(len(each), none) for each in (a, a, b))
    for start in range(0, len(a), TILE):
        product = (a[start : start + TILE] @ b.T).numpy()
        rows, part = np.arange(len(product)), slice(start, start + TILE)
        np.maximum(columns, product.max(axis=0), out=columns)
        partner[part] = product.argmax(axis=1)
        similarity[part] = product[rows, partner[part]]
        if with_next:
            product[rows, partner[part]] = none
            following[part] = product.max(axis=1)
    return _Nearest(*map(torch.from_numpy, (partner, similarity, following, columns[partner])))


def _similarity(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Cosines (P, N, M) of all pairs; padding is less similar than any descriptor."""
    products = torch.bmm(pad_sequence(list(first), True), pad_sequence(list(second), True).transpose(1, 2))
    for index, (a, b) in enumerate(zip(first, second, strict=True)):
        products[index, len(a) :] = -2
        products[index, :, len(b) :] = -2
    return products
