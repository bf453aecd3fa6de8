"""The outputs that all dense networks have in common; independent of files and pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NetworkMatch:
    """Dense warps between images A and B of each pair, with the probability that they are right.

    Attributes:
        warp_AB: (B, H, W, 2) float32, x and y in image B for every pixel of A; the image area is [-1, 1]
            (align_corners=False), and some networks point outside it.
        certainty_AB: (B, H, W) float32 in [0, 1]; 0 where the warp left image B and was clamped to it.
        warp_BA: the same from B to A, or None if only one direction was requested.
        certainty_BA: the same from B to A, or None.
    """

    warp_AB: Tensor
    certainty_AB: Tensor
    warp_BA: Tensor | None = None
    certainty_BA: Tensor | None = None


@dataclass(frozen=True)
class PreciseMatch(NetworkMatch):
    """Warps of a network that also predicts their precision; its authors call the certainty overlap.

    Attributes:
        precision_AB: (B, H, W, 2, 2) float32, inverse covariance of x and y of the target, per squared pixel of a
            target image of H x W pixels.
        precision_BA: the same from B to A, or None.
    """

    precision_AB: Tensor | None = None
    precision_BA: Tensor | None = None


@dataclass(frozen=True)
class Unfinished:
    """A batch of pairs between two stages of a network, so that later stages can run on some of them or in new batches.

    Attributes:
        tensors: the network's own, (directions * B, ...) each: A to B of all pairs first, then B to A.
        directions: 2, or 1 if only A to B was requested.
        steps: number of refiners applied so far.
    """

    tensors: Mapping[str, Tensor]
    directions: int
    steps: int = 0

    def apart(self) -> list[Unfinished]:
        """Split the batch into single pairs."""
        split = {name: tensor.unflatten(0, (self.directions, -1)) for name, tensor in self.tensors.items()}
        pairs = next(iter(split.values())).shape[1]
        return [
            Unfinished({name: tensor[:, i] for name, tensor in split.items()}, self.directions, self.steps)
            for i in range(pairs)
        ]


def together(pairs: Sequence[Unfinished]) -> Unfinished:
    """Join pairs from `Unfinished.apart` into one batch; all must be at the same stage."""
    first = pairs[0]
    if len(pairs) == 1:
        return first
    joined = {name: torch.stack([pair.tensors[name] for pair in pairs], dim=1).flatten(0, 1) for name in first.tensors}
    return Unfinished(joined, first.directions, first.steps)
