"""Pairs as tensors, in the form networks are trained and evaluated on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from romacli.geometry.coordinates import from_colmap_pixels

from .pairs import SyntheticPair


def stacked(pairs: Sequence[SyntheticPair]) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch for both directions: all images A, then all images B, with their true warps.

    Returns:
        images: (2B, 3, S, S) uint8 RGB.
        warp: (2B, S, S, 2) float32, normalised.
        visible: (2B, S, S) bool.
    """
    images = np.stack([p.image_A for p in pairs] + [p.image_B for p in pairs])
    warp = np.stack([p.warp_AB for p in pairs] + [p.warp_BA for p in pairs])
    visible = np.stack([p.visible_AB for p in pairs] + [p.visible_BA for p in pairs])
    height, width = visible.shape[1:]
    return (
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        from_colmap_pixels(torch.from_numpy(warp), (width, height)),
        torch.from_numpy(visible),
    )
