"""From a dense match to a given number of correspondences, drawn as RoMa does. For two-view work.

Source: RoMa, `sample` with mode "threshold_balanced". We differ where it is faulty: only positive certainties are
drawn, the true certainties are returned, and the density is computed in float32 in pieces. Independent samples of
many pairs share no keypoints, so Structure-from-Motion wants `romacli.keypoints` instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from romacli.geometry.coordinates import to_colmap_pixels
from romacli.types import Correspondences, DenseMatch

# Kernel density rows computed at once: 1024 x 40,000 float32 are 160 MB.
DENSITY_ROWS = 1024


@dataclass(frozen=True)
class SampleOptions:
    """The reference's values. `certain` and above counts as 1 when drawing; `oversampling` times as many are
    drawn first and thinned where they are dense; `bandwidth` is in normalised units; a sample with fewer than
    `min_density` neighbours is hardly ever kept."""

    num_matches: int = 10_000
    certain: float = 0.05
    oversampling: int = 4
    bandwidth: float = 0.1
    min_density: float = 10.0


def sample(match: DenseMatch, seed: int, options: SampleOptions | None = None) -> Correspondences:
    """Draw correspondences of a pair, spread over both images; the same seed gives the same ones.

    Args:
        match: warps of one or both directions.
        seed: as from `pair_seed`, so that results do not depend on the order of pairs.

    Returns:
        At most `num_matches` point pairs in COLMAP pixels with their certainties; fewer, or none, where no more
        certainties are positive.
    """
    options = options or SampleOptions()
    points, certainty = _candidates(match)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.where(certainty > options.certain, torch.ones_like(certainty), certainty)
    drawn = _draw(weights, options.oversampling * options.num_matches, generator)
    points, certainty = points[drawn], certainty[drawn]
    density = kernel_density(points, options.bandwidth)
    balance = torch.where(density < options.min_density, torch.full_like(density, 1e-7), 1 / (density + 1))
    kept = _draw(balance, options.num_matches, generator)
    return Correspondences(
        to_colmap_pixels(points[kept, :2], match.size_A).numpy(),
        to_colmap_pixels(points[kept, 2:], match.size_B).numpy(),
        certainty[kept].numpy(),
    )


def kernel_density(points: Tensor, bandwidth: float) -> Tensor:
    """Sum of Gaussian kernels at each of (N, D) points, itself included: (N,), exact and in bounded memory."""
    pieces = [
        torch.cdist(rows, points).square_().div_(-2 * bandwidth**2).exp_().sum(1) for rows in points.split(DENSITY_ROWS)
    ]
    return torch.cat(pieces) if pieces else points.new_zeros(0)


def _candidates(match: DenseMatch) -> tuple[Tensor, Tensor]:
    """Every pixel of positive certainty as (N, 4) normalised xA, yA, xB, yB on the CPU, and its certainty (N,)."""
    points, certainties = [], []
    for warp, certainty, turned in (
        (match.warp_AB, match.certainty_AB, False),
        (match.warp_BA, match.certainty_BA, True),
    ):
        if warp is None or certainty is None:
            continue
        positive = certainty > 0
        here, there = pixel_centres(*warp.shape[:2]).to(warp.device)[positive], warp[positive]
        points.append(torch.cat((there, here) if turned else (here, there), -1).float().cpu())
        certainties.append(certainty[positive].float().cpu())
    return torch.cat(points), torch.cat(certainties)


def pixel_centres(height: int, width: int) -> Tensor:
    """The normalised xy of a grid's pixel centres: (height, width, 2)."""
    y = torch.linspace(-1 + 1 / height, 1 - 1 / height, height)
    x = torch.linspace(-1 + 1 / width, 1 - 1 / width, width)
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((grid_x, grid_y), -1)


def _draw(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices drawn without replacement with probability proportional to weights, at most as many as there are.

    Exponential races (Efraimidis and Spirakis, 2006) have no limit on the number of candidates, unlike
    torch.multinomial.
    """
    keys = torch.empty_like(weights).exponential_(generator=generator) / weights
    return keys.topk(min(count, len(weights)), largest=False).indices
