"""Estimate the cost of a training run from its first steps."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass

import torch

from romacli.matchers.device import wait_for
from romacli.matchers.memory import peak_bytes

from .data.source import pair_source
from .data.stream import batches
from .loop import TRAINABLES, train_step
from .options import TrainOptions, check
from .ranks import joined
from .state import restored

_BYTES = 4  # per number: weights, their average and at most two moments of the optimiser are float32


@dataclass(frozen=True)
class Rehearsal:
    """The cost of a training run on one device.

    Attributes:
        steps: of the whole schedule; derived from the time of a step if the schedule is in minutes.
        pairs: over all steps and devices.
        parameters: number trained, without frozen ones.
        seconds_per_step: on the largest pairs, after a first step.
        memory_gb: peak, of the device, or of the whole process on a CPU.
        disk_gb: for the weights, the best ones and the checkpoint.
    """

    steps: int
    pairs: int
    parameters: int
    seconds_per_step: float
    memory_gb: float
    disk_gb: float


def rehearse(options: TrainOptions) -> Rehearsal:
    """Take two steps on the largest pairs of the schedule, and write nothing.

    Raises:
        UsageError: there is nothing to train on, or no time to train.
        InputError: the pairs or the initial weights cannot be read.
    """
    check(options)
    torch.set_num_threads(options.threads)
    with joined(options.device) as ranks:
        torch.manual_seed(options.seed)
        state = restored(options, TRAINABLES[options.model](options, ranks.device, ranks.count))
        source, phase = pair_source(options, ranks.device), state.trainable.phase_at(1.0)
        stream = batches(
            source,
            batch_size=options.batch_size,
            workers=0,
            seeds=(options.seed, 0, ranks.rank),
            phase_at=lambda _: phase,
            progress=multiprocessing.Value("d", 1.0),
            pin_memory=False,
        )
        for _ in range(2):
            batch = source.finished(next(stream), ranks.device)
            began = time.monotonic()
            train_step(state, ranks.wrapped(state.trainable), batch, phase)
            wait_for(ranks.device)
            seconds = time.monotonic() - began
        trained = sum(value.numel() for value in state.trainable.network.parameters() if value.requires_grad)
        steps = options.steps or round(options.minutes * 60 / seconds)
        peak = peak_bytes(ranks.device)
        disk = 2 * len(state.trainable.exported({})) + 4 * _BYTES * trained
        return Rehearsal(steps, steps * options.batch_size * ranks.count, trained, seconds, peak / 1e9, disk / 1e9)
