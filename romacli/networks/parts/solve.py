"""Linear systems with positive definite matrices, as the Gaussian processes of this room solve them."""

from __future__ import annotations

import torch
from torch import Tensor


def solve_positive_definite(matrix: Tensor, right: Tensor, *, strict: bool) -> Tensor:
    """Return matrix^-1 right, by Cholesky's factorisation.

    Args:
        matrix: (B, N, N).
        right: (B, N, C).
        strict: raise where a matrix has no factorisation. Otherwise its solution is NaN, which a training
            notices in the gradient: one bad image shall not end it.

    Raises:
        torch.linalg.LinAlgError: a matrix is not positive definite, or not finite.
    """
    if strict:
        return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return torch.cholesky_solve(right, factor.masked_fill(failed[:, None, None] > 0, torch.nan))
