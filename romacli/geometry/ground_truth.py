"""True dense warps, read on the grids that predictions live on."""

from __future__ import annotations

import torch
from torch import Tensor


def ground_truth_at(warp: Tensor, visible: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the true warp (B, h, w, 2) at the centres of a coarser grid, and where it is defined (B, h, w).

    The four nearest pixels are averaged; where one of them is not visible, or they disagree by more than
    about eight pixels (an edge in depth runs between them), there is no truth.
    """
    rows, columns = (_neighbours(n, m, warp.device) for n, m in zip(shape, warp.shape[1:3], strict=True))
    corners = torch.stack([warp[:, y][:, :, x] for y in rows for x in columns])
    seen = torch.stack([visible[:, y][:, :, x] for y in rows for x in columns]).all(dim=0)
    mean = corners.mean(dim=0)
    spread = (corners - mean).abs().amax(dim=(0, -1))
    return mean, seen & (spread < 8.0 / warp.shape[1])


def _neighbours(count: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The two nearest of `size` pixels to each of `count` cell centres along one axis."""
    centre = (torch.arange(count, device=device) + 0.5) * (size / count) - 0.5
    lower = centre.floor().long()
    return lower.clamp(0, size - 1), (lower + 1).clamp(0, size - 1)
