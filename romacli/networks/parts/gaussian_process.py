"""The Gaussian process with which DKM and RoMa regress where the features of one image are in another."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .float32 import Float32Conv2d, without_autocast
from .maps import pixel_grid, tokens
from .solve import solve_positive_definite


class GaussianProcess(nn.Module):
    """Regress where the features of A are in B, in a cosine basis; all in float32.

    Source: RoMa (arXiv 2305.15404), section 3.3, after DKM (arXiv 2202.00667). RoMa's paper states an inverse
    temperature of 10, but the published weights were trained with 5. `noise` is a variance, added to the diagonal
    unscaled.
    """

    temperature = 0.2
    noise = 0.1

    def __init__(self, basis_channels: int) -> None:
        super().__init__()
        self.pos_conv = Float32Conv2d(2, basis_channels)

    def kernel(self, u: Tensor, v: Tensor) -> Tensor:
        """exp((cos(u, v) - 1) / temperature) for all tokens u (B, N, C) and v (B, M, C), as (B, N, M)."""
        with without_autocast(u):
            norms = u.norm(dim=2)[:, :, None] * v.norm(dim=2)[:, None, :]
            cosine = u @ v.transpose(1, 2) / (norms + 1e-6)
            return ((cosine - 1) / self.temperature).exp()

    def posterior(self, kernel: Tensor, alpha: Tensor) -> Tensor:
        """The posterior mean (B, N, C) from the cross kernel (B, N, M) and `alpha` (B, M, C)."""
        with without_autocast(kernel):
            return kernel @ alpha

    def basis(self, grid: Tensor) -> Tensor:
        """cos(8 pi (W p + b)) of positions (1, 2, h, w), as tokens (1, h * w, C)."""
        return tokens(torch.cos(8 * math.pi * self.pos_conv(grid)))

    def alpha(self, maps: Tensor) -> Tensor:
        """The part of the posterior that depends only on the target image: (K + noise I)^-1 f.

        The posterior mean is then the cross kernel times alpha.

        Args:
            maps: (B, C, h, w) float32 projected features.

        Returns:
            (B, h * w, basis channels) float32.
        """
        v = tokens(maps)
        covariance = self.kernel(v, v) + self.noise * torch.eye(v.shape[1], device=v.device)
        basis = self.basis(pixel_grid(maps)).expand(len(v), -1, -1)
        return solve_positive_definite(covariance, basis, strict=not self.training)
