"""Muon: orthogonal steps for matrices, and AdamW for all other weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
# Of AdamW's steps as a share of the learning rate (arXiv 2502.16982, section 2.2).
ROOT_MEAN_SQUARE = 0.2
# Coefficients of the quintic Newton-Schulz iteration (K. Jordan, Muon, 2024), and their number.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
SMALLEST_SIDE = 16


class Muon(torch.optim.AdamW):
    """AdamW, except for parameter groups with `orthogonal`: their steps are matrices with nearly equal singular values.

    Such a step is the momentum of the gradient, orthogonalised (K. Jordan, Muon, 2024), and as large as AdamW's, so
    that learning rates and weight decay suit both. A filter counts as a matrix with a row for each output channel.
    """

    def __init__(self, groups: list[dict[str, Any]], *, precision: torch.dtype, **others: Any) -> None:
        """`precision` is that of the products which orthogonalise; `others` go to AdamW."""
        super().__init__(groups, **others)
        self._precision = precision

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            if group.get("orthogonal"):
                for weights in group["params"]:
                    self._step(weights, group["lr"], group["weight_decay"])
                    weights.grad = None  # leaves them alone in AdamW's step
        super().step()
        return loss

    def _step(self, weights: Tensor, rate: float, decay: float) -> None:
        if weights.grad is None:
            return
        gradient = weights.grad.flatten(1)
        state = self.state[weights]
        if not state:
            # AdamW reads a step from every state that it restores.
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(gradient))
        momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        step = orthogonal(gradient.lerp(momentum, MOMENTUM).to(self._precision)).to(weights.dtype)
        weights.mul_(1 - rate * decay)
        weights.add_(step.view_as(weights), alpha=-rate * ROOT_MEAN_SQUARE * max(step.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix with the singular vectors of another, and singular values, but tiny ones, of about 0.7 to 1.2."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    a, b, c = QUINTIC
    X = matrix / matrix.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = X @ X.T
        X = a * X + (b * gram + c * gram @ gram) @ X
    return X


def is_matrix(weights: Tensor) -> bool:
    """Whether weights map between channels, at least `SMALLEST_SIDE` each way; filters of single channels do not."""
    if weights.ndim < 2 or (weights.ndim == 4 and weights.shape[1] == 1):
        return False
    return min(weights.flatten(1).shape) >= SMALLEST_SIDE
