"""Pairs computed ahead of the training steps, in separate processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from romacli.errors import RomacliError
from romacli.train.trainable import Phase

from .source import PairSource


def batches(
    source: PairSource,
    *,
    batch_size: int,
    workers: int,
    seeds: tuple[int, ...],
    phase_at: Callable[[float], Phase],
    progress: Synchronized[float],
    pin_memory: bool,
) -> Iterator[Any]:
    """Yield begun pairs of the source endlessly, at the current size of the schedule.

    Args:
        workers: processes that compute pairs; 0 computes them on demand.
        seeds: first parts of the random seed; the last part is the worker's number.
        phase_at: returns the phase, with the pairs' size, at a fraction of the schedule.
        progress: this fraction, shared with the workers.
        pin_memory: put batches in pinned memory, for faster transfer to a GPU.

    Raises:
        RomacliError: from the source, also when it runs in a worker.
    """
    stream = _Stream(source, batch_size, seeds, phase_at, progress)
    cv2.setNumThreads(1)  # OpenCV's thread pool does not survive the fork of the workers
    context = "fork" if workers else None  # to share textures and lists instead of copying them
    loader = DataLoader(
        stream, batch_size=None, num_workers=workers, multiprocessing_context=context, pin_memory=pin_memory
    )
    for item in loader:
        if isinstance(item, RomacliError):
            raise item
        yield item


@dataclass(eq=False)
class _Stream(IterableDataset[Any]):
    source: PairSource
    batch_size: int
    seeds: tuple[int, ...]
    phase_at: Callable[[float], Phase]
    progress: Synchronized[float]

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        rng = np.random.default_rng([*self.seeds, worker.id if worker else 0])
        while True:
            try:
                yield self.source.begun(rng, self.phase_at(self.progress.value).size, self.batch_size)
            except RomacliError as error:  # raised in a worker, its message would be lost in a traceback
                yield error
                return
