"""The interface between the loop and the networks it trains."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

LAST_RATE = 0.01  # share of the peak learning rate at the very end
Batch = tuple[Tensor, Tensor, Tensor]
"""Images (2B, 3, S, S) uint8, A in the first half, with their true warps and visibility (see `stacked`)."""


def moved(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to a device."""
    images, warp, visible = (tensor.to(device, non_blocking=True) for tensor in batch)
    return images, warp, visible


@dataclass(frozen=True)
class Phase:
    """The sizes of a part of the schedule: the pairs' side, and the coarse pass's side if there are two."""

    size: int
    coarse_size: int | None = None


class Trainable(nn.Module, ABC):
    """A network with its losses and recipe: everything specific to a network that the loop can train.

    Calling it returns the loss, so that it can be wrapped as one module for several devices.

    Attributes:
        network: the network to train.
        clip_norm: maximum norm of the gradient.
        betas: AdamW's decay rates for gradients and their squares.
        frozen: prefixes of tensors that are not trained. They belong to another file and are neither averaged
            nor stored.
        sizes: px, sides of the pairs in the phases of its schedule.
        precision: of its matrix products, for the record.
        found: (2B,) shares of the last batch's visible points that the coarse stage found, both directions; NaN where
            nothing is visible. None if they are not measured.
    """

    found: Tensor | None = None
    clip_norm: ClassVar[float]
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    frozen: ClassVar[tuple[str, ...]] = ()

    def __init__(self, network: nn.Module, sizes: tuple[int, ...], precision: str) -> None:
        super().__init__()
        self.network = network
        self.sizes = sizes
        self.precision = precision

    @abstractmethod
    def forward(self, batch: Batch, phase: Phase) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of all losses of a batch, and each of them by name for the log."""

    @abstractmethod
    def phase_at(self, progress: float) -> Phase:
        """Return the sizes to train at, at a fraction of the schedule."""

    @abstractmethod
    def rate_at(self, progress: float) -> float:
        """Return the learning rate at a fraction of the schedule, relative to the peak."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's parameter groups, with the peak learning rate `lr` of each; see `Muon`."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a string that must be equal in a checkpoint and this network."""

    @abstractmethod
    def exported(self, facts: Mapping[str, str]) -> bytes:
        """Return the content of a weight file, with `facts` in its metadata."""

    def trained(self) -> dict[str, Tensor]:
        """Return all tensors of the network except the frozen ones, by name."""
        return {name: value for name, value in self.network.state_dict().items() if not name.startswith(self.frozen)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Load tensors as returned by `trained`."""
        self.network.load_state_dict({**self.network.state_dict(), **tensors})

    def copied(self) -> Self:
        """Return a copy for averaging, without gradients; frozen tensors are shared."""
        shared = [value for name, value in self.network.named_parameters() if name.startswith(self.frozen)]
        copy = deepcopy(self, {id(value): value for value in shared})
        for name, value in copy.network.named_parameters():
            if not name.startswith(self.frozen):
                value.requires_grad_(False)
        return copy.eval()


def cosine_decay(progress: float, *, constant: float = 0.0) -> float:
    """The learning rate at a fraction of the schedule, relative to the peak: constant at first, then down to 1 %."""
    decayed = min(1.0, max(0.0, (progress - constant) / (1 - constant)))
    return LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * decayed))


@torch.no_grad()
def average_into(average: Trainable, current: Trainable, weight: float) -> None:
    """Move averaged weights and batch norm statistics towards the current ones by `weight`."""
    live = current.trained()
    averaged, followed = [], []
    for name, value in average.trained().items():
        if value.is_floating_point():
            averaged.append(value)
            followed.append(live[name])
        else:
            value.copy_(live[name])
    torch._foreach_lerp_(averaged, followed, weight)
