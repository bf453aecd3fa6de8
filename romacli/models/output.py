"""What every dense network in this room returns for a batch of pairs; it knows neither files nor pixels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class NetworkMatch:
    """Dense warps between image A and image B of each pair, with the probability that they are right.

    Attributes:
        warp_AB: (B, H, W, 2) float32, x and y in image B for every pixel of A, in [-1, 1] over the image
            area (align_corners=False).
        certainty_AB: (B, H, W) float32 in [0, 1]; 0 where the warp left image B before it was clamped.
        warp_BA: the same from B to A, or None when only one direction was asked for.
        certainty_BA: the same from B to A, or None.
    """

    warp_AB: Tensor
    certainty_AB: Tensor
    warp_BA: Tensor | None = None
    certainty_BA: Tensor | None = None
