"""Feature maps and flows, in the coordinates that all networks here use.

Normalised x, y are in [-1, 1] over the image area (align_corners=False).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Above this number of values a CPU refines the maps one by one: jointly they would be no faster and need more memory.
VALUES_AT_ONCE = 1 << 22


def cell_centres(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return the normalised centres (H, W, 2) of a grid's cells, x first, float32."""
    y = torch.linspace(-1 + 1 / height, 1 - 1 / height, height, device=device)
    x = torch.linspace(-1 + 1 / width, 1 - 1 / width, width, device=device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def pixel_grid(maps: Tensor) -> Tensor:
    """Normalised x, y of the pixel centres of maps (B, C, h, w): (1, 2, h, w) float32."""
    height, width = maps.shape[-2:]
    return cell_centres(height, width, maps.device).permute(2, 0, 1)[None]


def sample(maps: Tensor, flow: Tensor) -> Tensor:
    """Sample maps (B, C, H, W) at normalised targets (B, 2, h, w): bilinear, zero outside, coordinates in float32."""
    maps = maps.float()
    in_rows = maps.device.type == "cpu" and maps.is_contiguous(memory_format=torch.channels_last)
    if in_rows and not torch.is_grad_enabled() and not torch.jit.is_tracing():
        return _sample_rows(maps, flow)
    return F.grid_sample(maps, flow.permute(0, 2, 3, 1), align_corners=False)


def _sample_rows(maps: Tensor, flow: Tensor) -> Tensor:
    """As `sample`, for maps whose channels are adjacent in memory, as are those of the result.

    Each pixel is the weighted sum of four rows of a table: on a CPU two to five times as fast as grid_sample.
    """
    batch, channels, height, width = maps.shape
    size = flow.new_tensor([width, height]).view(2, 1, 1)
    # Two pixels outside all is zero; targets further out move there.
    place = torch.minimum((((flow + 1) * size - 1) / 2).nan_to_num(nan=-1.0).clamp(min=-1), size)
    low = place.floor()
    (x, y), (right, down) = low.int().unbind(1), (place - low).unbind(1)
    left, up = 1 - right, 1 - down
    row = width + 3
    table = F.pad(maps, (1, 2, 1, 2)).permute(0, 2, 3, 1).reshape(-1, channels)
    first = torch.arange(batch, dtype=torch.int32)[:, None, None] * (row * (height + 3)) + (y + 1) * row + x + 1
    rows, weights = first.new_empty(*first.shape, 4), flow.new_empty(*first.shape, 4)
    for k, (offset, across, along) in enumerate(
        ((0, left, up), (1, right, up), (row, left, down), (row + 1, right, down))
    ):
        torch.add(first, offset, out=rows[..., k])
        torch.mul(across, along, out=weights[..., k])
    sampled = F.embedding_bag(rows.flatten(0, 2), table, mode="sum", per_sample_weights=weights.flatten(0, 2))
    return sampled.view(batch, *flow.shape[2:], channels).permute(0, 3, 1, 2)


def tokens(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) as row-major tokens (B, h * w, C)."""
    return maps.flatten(2).transpose(1, 2)


def resized(maps: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize bilinearly, without antialiasing when shrinking, as in the training of the published weights."""
    return maps if tuple(maps.shape[-2:]) == tuple(shape) else F.interpolate(maps, size=tuple(shape), mode="bilinear")


def compared_at_once(directions: Sequence[tuple[Tensor, Tensor]], *, training: bool) -> list[tuple[Tensor, Tensor]]:
    """The maps (B, C, h, w) a refiner compares in one call: all directions concatenated, or each pair alone."""
    x = directions[0][0]
    large = len(directions) * x.numel() > VALUES_AT_ONCE
    if large and x.device.type == "cpu" and not training:
        return [maps for x, y in directions for maps in zip(x.split(1), y.split(1), strict=True)]
    x, y = (torch.cat(maps) for maps in zip(*directions, strict=True))
    return [(x, y)]
