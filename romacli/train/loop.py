"""The training loop: pairs in, weights out, resumable from any checkpoint. Independent of the network."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from romacli.errors import RomacliError
from romacli.matchers.memory import keep_freed_memory
from romacli.synthetic.curriculum import Curriculum

from .data.source import pair_source
from .data.stream import batches
from .fusion import FusionTrainable
from .mini import MiniTrainable
from .options import TrainOptions, check
from .ranks import Ranks, joined
from .record import Record, Validate
from .roma import RoMaTrainable
from .state import TrainState, restored
from .trainable import Batch, Phase, Trainable

MAX_SKIPPED_IN_A_ROW = 20
TRAINABLES: dict[str, Callable[[TrainOptions, torch.device, int], Trainable]] = {
    "mini": MiniTrainable,
    "roma": RoMaTrainable,
    "fusion": FusionTrainable,
}


def train(
    options: TrainOptions, *, validate: Validate | None = None, say: Callable[[str], None] = lambda sentence: None
) -> TrainState:
    """Train a network and return its final state; the weights are written to `options.output`.

    During training the weight file contains the averaged weights of the last checkpoint, so an interrupted run
    leaves a usable network and continues when restarted. At the end it contains the best weights.
    Processes started by `torchrun` train together; the first one writes.

    Args:
        validate: evaluates the averaged weights periodically; without it the last weights count as the best.
        say: receives the results of validations.

    Raises:
        UsageError: there is nothing to train on, or no time to train.
        InputError: the pairs, the initial weights or the checkpoint cannot be read.
        RomacliError: the loss stopped being finite and did not recover.
    """
    check(options)
    torch.set_num_threads(options.threads)
    with joined(options.device) as ranks:
        if ranks.device.type == "cpu":
            keep_freed_memory()
        torch.manual_seed(options.seed)  # the same initial weights in all processes
        state = restored(options, TRAINABLES[options.model](options, ranks.device, ranks.count))
        torch.manual_seed(options.seed + ranks.rank)
        _train(state, options, ranks, Record(options, validate, say) if ranks.is_first else None)
    return state


def _train(state: TrainState, options: TrainOptions, ranks: Ranks, record: Record | None) -> None:
    """Train until the schedule ends; `record` is given only in the process that writes."""
    progress = multiprocessing.Value("d", state.progress(options))
    curriculum = Curriculum() if options.curriculum else None
    source = pair_source(options, ranks.device, curriculum)
    stream = batches(
        source,
        batch_size=options.batch_size,
        workers=options.workers,
        seeds=(options.seed, state.step, ranks.rank),
        phase_at=state.trainable.phase_at,
        progress=progress,
        pin_memory=ranks.device.type == "cuda",
    )
    learner = ranks.wrapped(state.trainable)
    began, skipped_in_a_row = time.monotonic() - state.elapsed_s, 0
    while progress.value < 1:
        state.set_learning_rate(progress.value)
        batch = source.finished(next(stream), ranks.device)
        losses = train_step(state, learner, batch, state.trainable.phase_at(progress.value))
        if curriculum is not None and losses and state.trainable.found is not None:
            curriculum.learn(*batch[1:], state.trainable.found)
        state.pairs += options.batch_size * ranks.count
        skipped_in_a_row = 0 if losses else skipped_in_a_row + 1
        if skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise RomacliError(
                f"the loss was not finite for {MAX_SKIPPED_IN_A_ROW} steps in a row, at step {state.step}. "
                f"Start again with a --learning-rate below {state.highest_rates[0]:g}."
            )
        state.elapsed_s = ranks.agreed(time.monotonic() - began)
        progress.value = state.progress(options)
        if record is not None:
            record.add(state, losses)
    if record is not None:
        record.finish(state)
    ranks.wait()


def train_step(state: TrainState, learner: nn.Module, batch: Batch, phase: Phase) -> dict[str, Tensor] | None:
    """Take one step and return the losses; None if the gradient was not finite and the step was skipped.

    Args:
        learner: the state's trainable, or its wrapper for several processes.
    """
    loss, losses = learner.train()(batch, phase)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.trainable.network.parameters(), state.trainable.clip_norm)
    state.step += 1
    if not torch.isfinite(norm):
        state.skipped += 1
        state.repair_statistics()
        return None
    state.optimizer.step()
    state.update_average()
    return {"loss": loss.detach(), **{name: value.detach() for name, value in losses.items()}}
