"""Correlation of each feature of one image with a window of the other image's features around its current target.

Operates on feature maps and targets, independent of the network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Gathered in one step: on a CPU, what about fits its cache; on other devices more, for few kernel launches.
CHUNK_BYTES = 1 << 21
CHUNK_VALUES_ELSEWHERE = 1 << 28


def local_correlation(x: Tensor, y: Tensor, flow: Tensor, radius: int) -> Tensor:
    """Dot products of x with y, sampled bilinearly on a window of integer feature offsets around the target.

    All samples of a window share one sub-pixel fraction, so y is read at integer positions only, once per pixel of
    the window plus a border of one, and the dot products are interpolated instead of the features. y counts as zero
    outside its map. For use without gradients, which not every code path here supports.

    Source: RoMa (arXiv 2305.15404), whose refiners use it; the order of computation is specific to this package.

    Args:
        x: (B, C, H, W) query features.
        y: (B, C, Hy, Wy) features they are compared with.
        flow: (B, 2, H, W) targets in y, normalised x, y in [-1, 1] (align_corners=False).
        radius: of the window, in pixels of y.

    Returns:
        (B, (2 * radius + 1)^2, H, W) dot products divided by sqrt(C), window positions in row-major order.
    """
    batch, channels, height, width = x.shape
    base, fraction = _whole_and_rest(flow, y.shape[-2:], radius)
    steps = range(2 * radius + 2)
    x_rows = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels) * channels**-0.5
    # Padded with zeros so that every window lies inside.
    padded = F.pad(y, (2 * radius + 2,) * 4).permute(0, 2, 3, 1).contiguous()  # (B, Hp, Wp, C)
    row_length = padded.shape[2]
    y_rows = padded.flatten(1, 2)
    corners = base[..., 1] * row_length + base[..., 0]  # (B, N)
    rows = [row * row_length for row in steps]
    window = [row + column for row in rows for column in steps]  # K offsets from the corner
    if y.shape[-2:].numel() <= 8 * len(window):
        dots = torch.bmm(x_rows, y_rows.transpose(1, 2)).gather(2, corners[..., None] + corners.new_tensor(window))
    else:
        batch_starts = torch.arange(batch, device=corners.device)[:, None] * y_rows.shape[1]
        places = (corners + batch_starts).flatten()
        x_rows, y_rows = x_rows.flatten(0, 1), y_rows.flatten(0, 1)
        if x.device.type == "cpu" and not torch.jit.is_tracing():
            dots = _dots_by_strip(x_rows, y_rows, places, rows)
        else:
            dots = _dots_by_place(x_rows, y_rows, places, window)
        dots = dots.view(*corners.shape, -1)
    # Interpolated in the precision of the targets: a half-precision fraction is off by hundredths of a pixel.
    dots = _blend(dots.unflatten(2, (len(steps), len(steps))).to(fraction.dtype), fraction)  # (B, N, 2r + 1, 2r + 1)
    return dots.flatten(2).transpose(1, 2).unflatten(2, (height, width)).to(x.dtype)


def _whole_and_rest(flow: Tensor, shape: torch.Size, radius: int) -> tuple[Tensor, Tensor]:
    """The top-left of each target's window in the padded map, x, y (B, N, 2), and its fractions (B, N, 2)."""
    height, width = shape
    size = flow.new_tensor([width, height])
    target = ((flow.flatten(2).transpose(1, 2) + 1) * size - 1) / 2  # (B, N, 2), pixel centres at integers
    # A window this far outside reads only zeros, so clamping keeps it within the padding.
    target = torch.minimum(target.nan_to_num(nan=-torch.inf).clamp(min=-(radius + 2)), size + radius)
    base = target.floor()
    return base.long() + radius + 2, target - base


def _dots_by_place(x_rows: Tensor, y_rows: Tensor, places: Tensor, window: list[int]) -> Tensor:
    """Dot products (N, K) of every x (N, C) with the K rows of y in the window at its position (N,)."""
    chunk = max(1, CHUNK_VALUES_ELSEWHERE // (len(window) * x_rows.shape[1]))
    offsets, dots = places.new_tensor(window), []
    for first in range(0, len(places), chunk):
        some = slice(first, first + chunk)
        windows = y_rows.index_select(0, (places[some, None] + offsets).flatten()).unflatten(0, (-1, len(window)))
        dots.append(torch.bmm(windows, x_rows[some, :, None]).squeeze(2))
    return torch.cat(dots)


def _dots_by_strip(x_rows: Tensor, y_rows: Tensor, places: Tensor, rows: list[int]) -> Tensor:
    """As `_dots_by_place` for a square window that begins at these rows, each read as one piece of memory.

    On a CPU twice as fast as one row of y at a time.
    """
    side, channels = len(rows), x_rows.shape[1]
    chunk = max(1, CHUNK_BYTES // (side**2 * channels * x_rows.element_size()))
    strips = y_rows.as_strided((len(y_rows) - side + 1, side * channels), (channels, 1))
    starts, queries = places[:, None] + places.new_tensor(rows), x_rows[:, None]
    dots = x_rows.new_empty(len(places), 1, side**2)
    for first in range(0, len(places), chunk):
        some = slice(first, first + chunk)
        windows = strips.index_select(0, starts[some].flatten()).view(-1, side**2, channels)
        torch.bmm(queries[some], windows.transpose(1, 2), out=dots[some])
    return dots


def _blend(dots: Tensor, fraction: Tensor) -> Tensor:
    """Bilinear interpolation of neighbouring dot products: (B, N, K + 1, K + 1) to (B, N, K, K)."""
    along_x, along_y = fraction[..., None, None].unbind(2)
    rows = torch.lerp(dots[..., :, :-1], dots[..., :, 1:], along_x)
    return torch.lerp(rows[..., :-1, :], rows[..., 1:, :], along_y)
