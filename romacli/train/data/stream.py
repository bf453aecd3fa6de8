"""Pairs made ahead of the steps that use them, by processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    """Yield what the source begins, without end, at the size that the schedule has come to.

    Args:
        workers: processes to make them in; 0 makes them when they are asked for.
        seeds: begin the random numbers, which go on with the number of the worker.
        phase_at: says the pairs' size at a fraction of the schedule.
        progress: that fraction, shared with the workers.
        pin_memory: place batches where a GPU can fetch them by itself.

    Raises:
        RomacliError: as the source, also from within a worker.
    """
    stream = _Stream(source, batch_size, seeds, phase_at, progress)
    cv2.setNumThreads(1)  # OpenCV's thread pool does not survive the fork of the workers
    context = "fork" if workers else None  # textures and lists are shared, not copied
    loader = DataLoader(
        stream, batch_size=None, num_workers=workers, multiprocessing_context=context, pin_memory=pin_memory
    )
    for item in loader:
        if isinstance(item, RomacliError):
            raise item
        yield item


class _Stream(IterableDataset[Any]):
    def __init__(
        self,
        source: PairSource,
        batch_size: int,
        seeds: tuple[int, ...],
        phase_at: Callable[[float], Phase],
        progress: Synchronized[float],
    ) -> None:
        self.source, self.batch_size, self.seeds = source, batch_size, seeds
        self.phase_at, self.progress = phase_at, progress

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        rng = np.random.default_rng([*self.seeds, worker.id if worker else 0])
        while True:
            try:
                yield self.source.begun(rng, self.phase_at(self.progress.value).size, self.batch_size)
            except RomacliError as error:  # raised in a worker it would lose its words in a traceback
                yield error
                return
