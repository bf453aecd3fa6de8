"""Sample a given number of correspondences from a dense match, as RoMa does, for two-view problems.

Source: RoMa, `sample` with mode "threshold_balanced". This version differs where that one is faulty: it samples only
certainties above the matcher's minimum, returns the actual certainties, and reads the density off a grid, or sums it
in float32 in chunks.
Independent samples of many pairs share no keypoints; for Structure-from-Motion use `romacli.keypoints`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from romacli.geometry.coordinates import to_colmap_pixels
from romacli.types import Correspondences, DenseMatch

# Kernel density rows computed at once: 256 x 40,000 float32 are 41 MB.
DENSITY_ROWS = 256
# A kernel of exp(-80) adds nothing to a sum of 1 or more; below exp(-87) values are denormal and five times as slow.
LEAST_EXPONENT = -80.0
# Spacing of the density grid's nodes in normalised units: 31^4 nodes in float32 take 4 MB. At RoMa's bandwidth the
# median error of densities is 1.4 %; a spacing of 0.1 gives 3.6 %, 0.05 gives 0.8 % in three times the time.
GRID_CELL = 1 / 15
# Points further out are moved to the edge, so that the grid takes at most 55 MB. Images end at 1.
GRID_EXTENT = 2.0


@dataclass(frozen=True)
class SampleOptions:
    """The reference's values. Certainties of `certain` and above count as 1 when sampling; `oversampling` times as many
    are drawn first and thinned where they are dense; `bandwidth` is in normalised units; samples with fewer than
    `min_density` neighbours are almost never kept. `exact`: sum the density over all samples, as the reference does,
    instead of the grid, which is about a hundred times as fast."""

    num_matches: int = 10_000
    certain: float = 0.05
    oversampling: int = 4
    bandwidth: float = 0.1
    min_density: float = 10.0
    exact: bool = False


def sample(match: DenseMatch, seed: int, options: SampleOptions | None = None) -> Correspondences:
    """Draw correspondences of a pair, spread over both images; equal seeds give equal results.

    Args:
        match: warps of one or both directions.
        seed: for example from `pair_seed`, so that results do not depend on the order of pairs.

    Returns:
        At most `num_matches` point pairs in COLMAP pixels with their certainties; fewer, or none, if not enough
        certainties are above the match's `min_certainty`.
    """
    options = options or SampleOptions()
    points, certainty = _candidates(match)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.where(certainty > options.certain, torch.ones_like(certainty), certainty)
    drawn = _draw(weights, options.oversampling * options.num_matches, generator)
    points, certainty = points[drawn], certainty[drawn]
    density = (kernel_density if options.exact else grid_density)(points, options.bandwidth)
    balance = torch.where(density < options.min_density, torch.full_like(density, 1e-7), 1 / (density + 1))
    kept = _draw(balance, options.num_matches, generator)
    return Correspondences(
        to_colmap_pixels(points[kept, :2], match.size_A).numpy(),
        to_colmap_pixels(points[kept, 2:], match.size_B).numpy(),
        certainty[kept].numpy(),
    )


def kernel_density(points: Tensor, bandwidth: float) -> Tensor:
    """Sum of Gaussian kernels at each of (N, D) points, itself included: (N,), exact, in bounded memory."""
    pieces = []
    for rows in points.split(DENSITY_ROWS):
        exponent = torch.cdist(rows, points).square_().div_(-2 * bandwidth**2).clamp_(min=LEAST_EXPONENT)
        pieces.append(exponent.exp_().sum(1))
    return torch.cat(pieces) if pieces else points.new_zeros(0)


def grid_density(points: Tensor, bandwidth: float, cell: float = GRID_CELL) -> Tensor:
    """Approximate `kernel_density` by a grid over the points' extent: (N,) for (N, D) points.

    Points are spread over the surrounding nodes, the nodes are smoothed along each axis and interpolated at the points.
    Spreading and interpolating by linear weights each blur by cell^2 / 6, which the smoothing compensates.

    Raises:
        ValueError: cells too wide for the bandwidth.
    """
    variance = bandwidth**2 - cell**2 / 3
    if variance <= 0:
        raise ValueError(f"cells of {cell} are too wide for a bandwidth of {bandwidth}")
    if not len(points):
        return points.new_zeros(0)
    dimensions = points.shape[1]
    points = points.clamp(-GRID_EXTENT, GRID_EXTENT)
    place = (points - points.amin(0)) / cell
    nodes = [int(extent) + 2 for extent in place.amax(0)]
    low = place.floor()
    share = place - low
    strides = torch.tensor([math.prod(nodes[axis + 1 :]) for axis in range(dimensions)])
    first = (low.long() * strides).sum(1)
    corners = []
    for upper in itertools.product((False, True), repeat=dimensions):
        weight = torch.where(torch.tensor(upper), share, 1 - share).prod(1)
        corners.append((first + int(strides[list(upper)].sum()), weight))
    grid = points.new_zeros(math.prod(nodes))
    for index, weight in corners:
        grid.index_add_(0, index, weight)
    grid = grid.view(nodes)
    for axis in range(dimensions):
        offset = torch.arange(nodes[axis], dtype=points.dtype) * cell
        kernel = (bandwidth / variance**0.5) * torch.exp((offset[:, None] - offset) ** 2 / (-2 * variance))
        grid = torch.tensordot(grid, kernel, ([0], [0]))  # the smoothed axis moves to the end: after all, in order
    grid = grid.reshape(-1)
    density = points.new_zeros(len(points))
    for index, weight in corners:
        density += weight * grid[index]
    return density


def _candidates(match: DenseMatch) -> tuple[Tensor, Tensor]:
    """Pixels above the minimum certainty as (N, 4) normalised xA, yA, xB, yB on the CPU, and their certainty (N,)."""
    points, certainties = [], []
    for warp, certainty, turned in (
        (match.warp_AB, match.certainty_AB, False),
        (match.warp_BA, match.certainty_BA, True),
    ):
        if warp is None or certainty is None:
            continue
        believed = certainty > match.min_certainty
        here, there = pixel_centres(*warp.shape[:2]).to(warp.device)[believed], warp[believed]
        points.append(torch.cat((there, here) if turned else (here, there), -1).float().cpu())
        certainties.append(certainty[believed].float().cpu())
    return torch.cat(points), torch.cat(certainties)


def pixel_centres(height: int, width: int) -> Tensor:
    """The normalised xy of a grid's pixel centres: (height, width, 2)."""
    y = torch.linspace(-1 + 1 / height, 1 - 1 / height, height)
    x = torch.linspace(-1 + 1 / width, 1 - 1 / width, width)
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((grid_x, grid_y), -1)


def _draw(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw indices without replacement, with probabilities proportional to weights; at most as many as there are.

    Exponential races (Efraimidis and Spirakis, 2006), unlike torch.multinomial, have no limit on the number of
    candidates.
    """
    keys = torch.empty_like(weights).exponential_(generator=generator) / weights
    return keys.topk(min(count, len(weights)), largest=False).indices
