"""Ground-truth dense warps, resampled to the grids of predictions."""

from __future__ import annotations

import torch
from torch import Tensor


def ground_truth_at(warp: Tensor, visible: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the true warp (B, h, w, 2) at the centres of another grid, and where it is defined (B, h, w).

    Bilinear between the nearest pixels; undefined if one of them is not visible, or if they differ by more than
    about eight pixels, as across a depth edge.
    """
    rows, columns = (_neighbours(n, m, warp.device) for n, m in zip(shape, warp.shape[1:3], strict=True))
    corners = torch.stack([warp[:, y][:, :, x] for y in rows[:2] for x in columns[:2]])
    seen = torch.stack([visible[:, y][:, :, x] for y in rows[:2] for x in columns[:2]]).all(dim=0)
    spread = (corners - corners.mean(dim=0)).abs().amax(dim=(0, -1))
    upper, lower = corners.unflatten(0, (2, 2)).unbind(0)
    along, down = columns[2][:, None], rows[2][:, None, None]
    between = torch.lerp(torch.lerp(upper[0], upper[1], along), torch.lerp(lower[0], lower[1], along), down)
    return between, seen & (spread < 8.0 / warp.shape[1])


def _neighbours(count: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest of `size` pixels on both sides of `count` cell centres along one axis, and the position between."""
    centre = ((torch.arange(count, device=device) + 0.5) * (size / count) - 0.5).clamp(0, size - 1)
    before = centre.floor()
    return before.long(), centre.ceil().long(), centre - before
