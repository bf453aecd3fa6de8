"""Solve linear systems with positive definite matrices, for the Gaussian processes of the networks."""

from __future__ import annotations

import torch
from torch import Tensor


def solve_positive_definite(matrix: Tensor, right: Tensor, *, strict: bool) -> Tensor:
    """Compute matrix^-1 right by Cholesky factorisation.

    Args:
        matrix: (B, N, N).
        right: (B, N, C).
        strict: raise if a matrix cannot be factorised. Otherwise its solution is NaN, which training detects in the
            gradient: one bad image should not end it.

    Raises:
        torch.linalg.LinAlgError: a matrix is not positive definite, or not finite.
    """
    if torch.jit.is_tracing():
        return _solved_by_products(matrix, right)
    if strict:
        return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return torch.cholesky_solve(right, factor.masked_fill(failed[:, None, None] > 0, torch.nan))


# Each Newton step squares the error: this many reach float32 rounding for condition numbers of several thousand.
_STEPS = 26


def _solved_by_products(matrix: Tensor, right: Tensor) -> Tensor:
    """The same with matrix products only, the operations ONNX has: Newton's inverse, then two corrections."""
    largest = matrix.abs().sum(-1).amax(-1)[:, None, None]
    eye = torch.eye(matrix.shape[-1], device=matrix.device)
    inverse = eye / largest
    for _ in range(_STEPS):
        inverse = inverse @ (2 * eye - matrix @ inverse)
    solution = inverse @ right
    for _ in range(2):
        solution = solution + inverse @ (right - matrix @ solution)
    return solution
