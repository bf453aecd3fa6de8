"""The processes that train together, as started by `torchrun`: one per device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from romacli.errors import UsageError
from romacli.matchers.device import resolve_device

VALIDATION_LIMIT = timedelta(hours=2)  # how long the others wait while one process validates


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: its index; the first one writes.
        count: number of processes.
        device: its own.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def wrapped(self, module: nn.Module) -> nn.Module:
        """Wrap a module so that gradients are averaged over all processes; weights are the first process's."""
        if self.count == 1:
            return module
        return DistributedDataParallel(module, device_ids=[self.device] if self.device.type == "cuda" else None)

    def agreed(self, value: float) -> float:
        """Return the first process's value: clocks differ, and all must end at the same step."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return shared.item()

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self.count > 1:
            dist.barrier()


def is_first_process() -> bool:
    """Whether this process writes and prints, even before it has joined the others."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the other processes started by `torchrun`; without it, train alone.

    Args:
        device: as given to `--device`; with `cuda` and no number, each process takes its own.

    Raises:
        UsageError: the device has a number, so several processes would share it.
        InputError: the device is not available.
    """
    count = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if count == 1:
        yield Ranks(0, 1, resolve_device(device))
        return
    rank, own = int(os.environ["RANK"]), resolve_device(device)
    if own.type == "cuda":
        if own.index is not None:
            raise UsageError(f"--device {device} is one device for {count} processes. Give --device cuda.")
        own = resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', rank)}")
        torch.cuda.set_device(own)
    backend = "nccl" if own.type == "cuda" else "gloo"
    dist.init_process_group(backend, rank=rank, world_size=count, timeout=VALIDATION_LIMIT)
    try:
        yield Ranks(rank, count, own)
    finally:
        dist.destroy_process_group()
