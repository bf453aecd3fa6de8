"""Correlation of each feature of one image with a window of the other image's around its current target.

It knows feature maps and targets, not the network they come from.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Rows of y gathered in one step: on a CPU as many as its cache holds; a GPU wants few launches.
CHUNK_ROWS = 2048
CHUNK_ROWS_CUDA = 524_288


def local_correlation(x: Tensor, y: Tensor, flow: Tensor, radius: int) -> Tensor:
    """Dot products of x with y sampled bilinearly on a window of whole feature pixels around the target.

    All places of a window share one sub-pixel fraction, so y is read at whole pixels only, once per pixel of
    the window and of a border of one, and the dot products are blended instead of the features. What lies
    outside y counts as zero.

    Source: RoMa (arXiv 2305.15404), whose refiners read it; the order of computation is ours.

    Args:
        x: (B, C, H, W) features that look for their like.
        y: (B, C, Hy, Wy) features they are compared with.
        flow: (B, 2, H, W) targets in y, normalised x, y in [-1, 1] (align_corners=False).
        radius: of the window, in pixels of y.

    Returns:
        (B, (2 * radius + 1)^2, H, W) dot products divided by sqrt(C), rows of the window slow, columns fast.
    """
    batch, channels, height, width = x.shape
    y_height, y_width = y.shape[-2:]
    x_rows = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels) * channels**-0.5
    y_rows = y.permute(0, 2, 3, 1).reshape(batch, y_height * y_width, channels)
    indices, inside, fraction = _whole_pixel_window(flow, (y_height, y_width), radius)
    if y_rows.shape[1] <= 8 * indices.shape[2]:
        dots = torch.bmm(x_rows, y_rows.transpose(1, 2)).gather(2, indices)
    else:
        dots = _gathered_dots(x_rows, y_rows, indices)
    dots = (dots * inside).unflatten(2, (2 * radius + 2, 2 * radius + 2))
    window = _blend(dots, fraction.to(dots.dtype))  # (B, N, 2r + 1, 2r + 1)
    return window.flatten(2).transpose(1, 2).unflatten(2, (height, width))


def _whole_pixel_window(flow: Tensor, shape: tuple[int, int], radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices (B, N, (2r+2)^2) into the flattened map, if they lie inside it, and fractions (B, N, 2)."""
    height, width = shape
    size = flow.new_tensor([width, height])
    target = ((flow.flatten(2).transpose(1, 2) + 1) * size - 1) / 2  # (B, N, 2), pixel centres at integers
    # A window this far outside sees nothing, wherever it is: the clamp keeps the integers small.
    target = torch.minimum(target.clamp(min=-(radius + 2)), size + radius + 1)
    base = target.floor()
    reach = torch.arange(-radius, radius + 2, device=flow.device)
    cols, rows = (base.long()[..., None] + reach).unbind(2)  # each (B, N, 2r + 2)
    inside_cols, inside_rows = (cols >= 0) & (cols < width), (rows >= 0) & (rows < height)
    indices = rows.clamp(0, height - 1)[..., :, None] * width + cols.clamp(0, width - 1)[..., None, :]
    inside = inside_rows[..., :, None] & inside_cols[..., None, :]
    return indices.flatten(2), inside.flatten(2), target - base


def _gathered_dots(x_rows: Tensor, y_rows: Tensor, indices: Tensor) -> Tensor:
    """Dot products (B, N, K) of every x with the K rows of y its indices (B, N, K) name."""
    offset = torch.arange(len(y_rows), device=indices.device)[:, None, None] * y_rows.shape[1]
    x_rows, y_rows, places = x_rows.flatten(0, 1), y_rows.flatten(0, 1), (indices + offset).flatten(0, 1)
    chunk = max(1, (CHUNK_ROWS_CUDA if places.is_cuda else CHUNK_ROWS) // places.shape[1])
    dots = [
        torch.bmm(y_rows[part], x_part[:, :, None]).squeeze(2)
        for x_part, part in zip(x_rows.split(chunk), places.split(chunk), strict=True)
    ]
    return torch.cat(dots).view(indices.shape)


def _blend(dots: Tensor, fraction: Tensor) -> Tensor:
    """Bilinear blend of neighbouring dot products: (B, N, K + 1, K + 1) to (B, N, K, K)."""
    along_x, along_y = fraction[..., None, None].unbind(2)
    rows = torch.lerp(dots[..., :, :-1], dots[..., :, 1:], along_x)
    return torch.lerp(rows[..., :-1, :], rows[..., 1:, :], along_y)
