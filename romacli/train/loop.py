"""The training loop of the mini model: pairs in, weights out, resumable at any checkpoint."""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
import os
import subprocess
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from romacli.errors import InputError, RomacliError, UsageError
from romacli.matching.dense import normalise
from romacli.matching.device import has_fast_bfloat16
from romacli.models.mini import LAYOUT, Mini, MiniConfig, config_to_json, read_mini, swap_halves, weights_of
from romacli.models.weights import sha256_of
from romacli.synthetic import Textures, sample_pair
from romacli.synthetic.batch import stacked

from .losses import total_loss

Batch = tuple[Tensor, Tensor, Tensor]

EMA_DECAY = 0.996
CLIP_NORM = 3.0
WARM_UP_STEPS = 100
CONSTANT_SHARE = 0.2  # of the budget at full learning rate, before the cosine
LAST_RATE = 0.01  # of the full learning rate, at the very end
MAX_SKIPPED_IN_A_ROW = 20
LOG_EVERY_STEPS = 50


@dataclass(frozen=True)
class TrainOptions:
    """What `train` needs to know; the defaults are the recipe of the shipped weights.

    Attributes:
        output: the weight file to write, *.safetensors; a .csv log and a .checkpoint.pt lie beside it.
        textures: folder of photographs to paint scenes with; None uses procedural textures alone.
        procedural: how many generated textures to add.
        minutes: length of the schedule in wall-clock time.
        steps: length of the schedule in steps instead; overrides `minutes`.
        small_size: px, side of the training pairs for the first 35 % of the schedule, when pairs count most.
        size: px, side up to 78 % of the schedule.
        fine_size: px, side for the rest, matched in two passes as photographs will be.
        batch_size: pairs a step, each used in both directions.
        learning_rate: of AdamW, held for 20 % of the schedule, then a cosine.
        seed: of the weights and of the pairs.
        workers: processes that render pairs; 0 renders between the steps.
        threads: CPU threads of the network.
        device: where the network lives, such as cpu or cuda.
        checkpoint_minutes: how often the state is saved.
        start: weights to begin with in place of random ones; their configuration is used.
        resume: continue from the checkpoint beside `output` if there is one.
        config: widths and depths of the network.
    """

    output: Path
    textures: Path | None = None
    procedural: int = 100
    minutes: float = 60.0
    steps: int | None = None
    small_size: int = 192
    size: int = 224
    fine_size: int = 320
    batch_size: int = 8
    learning_rate: float = 2e-3
    seed: int = 0
    workers: int = 1
    threads: int = 1
    device: str = "cpu"
    checkpoint_minutes: float = 2.0
    start: Path | None = None
    resume: bool = True
    config: MiniConfig = MiniConfig()


@dataclass(frozen=True)
class Phase:
    """What a part of the schedule trains at: the pairs' side, and the coarse pass's side if there are two."""

    size: int
    coarse_size: int | None


@dataclass
class TrainState:
    """All that changes while training; what a checkpoint holds."""

    network: Mini
    average: Mini
    optimizer: torch.optim.Optimizer
    in_bfloat16: bool
    step: int = 0
    pairs: int = 0
    elapsed_s: float = 0.0
    skipped: int = 0


def train(options: TrainOptions) -> Path:
    """Train a mini network and return the path of its weights.

    The weight file always holds the averaged weights of the last checkpoint, so an interrupted run leaves a
    usable network and continues when started again.

    Raises:
        UsageError: there is nothing to paint scenes with, or no time to train.
        InputError: the textures or the checkpoint cannot be read.
        RomacliError: the loss stopped being finite and did not recover.
    """
    if options.steps is None and options.minutes <= 0:
        raise UsageError(f"--minutes {options.minutes:g} leaves no time to train. Give a positive number.")
    if options.textures is None and options.procedural == 0:
        raise UsageError("--procedural 0 without --textures leaves nothing to paint scenes with. Give either.")
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)  # OpenCV's thread pool does not survive the fork of the workers
    state = _restored(options)
    textures = Textures.load(options.textures, procedural=options.procedural, seed=options.seed)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    progress = multiprocessing.Value("d", _progress(state, options))
    batches = iter(_batches(textures, options, progress, first_step=state.step))
    history: list[dict[str, float]] = []
    began, saved = time.monotonic() - state.elapsed_s, time.monotonic()
    skipped_in_a_row = 0
    while progress.value < 1:
        _set_learning_rate(state, options, progress.value)
        losses = train_step(state, next(batches), options, phase_at(progress.value, options))
        skipped_in_a_row = 0 if losses else skipped_in_a_row + 1
        if skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise RomacliError(
                f"the loss was not finite for {MAX_SKIPPED_IN_A_ROW} steps in a row, at step {state.step}. "
                f"Start again with a --learning-rate below {options.learning_rate:g}."
            )
        if losses:
            history.append(losses)
        state.elapsed_s = time.monotonic() - began
        progress.value = _progress(state, options)
        if state.step % LOG_EVERY_STEPS == 0 and history:
            _log(state, options, history)
            history.clear()
        if time.monotonic() - saved > options.checkpoint_minutes * 60:
            save_checkpoint(state, options)
            saved = time.monotonic()
    save_checkpoint(state, options)
    return options.output


def train_step(state: TrainState, batch: Batch, options: TrainOptions, phase: Phase) -> dict[str, float]:
    """Take one step and return the losses; an empty dict says that the gradient was not finite."""
    images, warp, visible = (tensor.to(options.device, non_blocking=True) for tensor in batch)
    network, images = state.network.train(), normalise(images)
    coarse, fine = images, None
    if phase.coarse_size is not None and images.shape[-1] == phase.size:
        shape = (phase.coarse_size, phase.coarse_size)
        coarse, fine = F.interpolate(images, shape, mode="bilinear", antialias=True), images
    with torch.autocast(options.device.split(":")[0], torch.bfloat16, enabled=state.in_bfloat16):
        encoded = network.encode(coarse, fine)
        trace = network.trace(encoded, swap_halves(encoded), symmetric=True)
    loss, losses = total_loss(network, encoded, trace, warp, visible)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
    state.step += 1
    state.pairs += len(images) // 2
    if not torch.isfinite(norm):
        state.skipped += 1
        return {}
    state.optimizer.step()
    _update_average(state)
    return {"loss": loss.item(), **{name: value.item() for name, value in losses.items()}}


def phase_at(progress: float, options: TrainOptions) -> Phase:
    """Return what to train at a fraction of the schedule: small pairs first, and two passes at the end."""
    if progress < 0.35:
        return Phase(options.small_size, None)
    if progress < 0.78:
        return Phase(options.size, None)
    return Phase(options.fine_size, round(options.fine_size * 0.6 / 16) * 16)


def learning_rate_at(progress: float, step: int, peak: float) -> float:
    """Return the learning rate: linear warm-up in steps, then constant, then a cosine in the progress."""
    decay = min(1.0, max(0.0, (progress - CONSTANT_SHARE) / (1 - CONSTANT_SHARE)))
    cosine = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * decay))
    return peak * min(1.0, (step + 1) / WARM_UP_STEPS) * cosine


def export(network: Mini, path: Path, facts: dict[str, str]) -> None:
    """Write the weights in half precision, all or nothing, with configuration and `facts` as metadata."""
    tensors = {key: value.detach().cpu().half().contiguous() for key, value in weights_of(network).items()}
    metadata = {"layout": LAYOUT, "config": config_to_json(network.config), **facts}
    temporary = path.with_name(path.name + ".partial")
    temporary.write_bytes(save(tensors, metadata=metadata))
    os.replace(temporary, path)


def save_checkpoint(state: TrainState, options: TrainOptions) -> None:
    """Save the state beside the output, and the averaged weights as the output itself."""
    path = checkpoint_path(options)
    temporary = path.with_name(path.name + ".partial")
    torch.save(
        {
            "network": state.network.state_dict(),
            "average": state.average.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "counts": (state.step, state.pairs, state.elapsed_s, state.skipped),
            "config": config_to_json(state.network.config),
        },
        temporary,
    )
    os.replace(temporary, path)
    export(state.average, options.output, _facts(state, options))


def checkpoint_path(options: TrainOptions) -> Path:
    """Return where a run keeps its state."""
    return options.output.with_suffix(".checkpoint.pt")


class _PairStream(IterableDataset[Batch]):
    """Batches without end; each worker draws its own, and looks up how far the schedule is."""

    def __init__(
        self, textures: Textures, options: TrainOptions, progress: Synchronized[float], first_step: int
    ) -> None:
        self.textures, self.options, self.progress, self.first_step = textures, options, progress, first_step

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        rng = np.random.default_rng([self.options.seed, self.first_step, worker.id if worker else 0])
        while True:
            size = phase_at(self.progress.value, self.options).size
            yield stacked([sample_pair(self.textures, rng, size) for _ in range(self.options.batch_size)])


def _batches(
    textures: Textures, options: TrainOptions, progress: Synchronized[float], first_step: int
) -> DataLoader[Batch]:
    stream = _PairStream(textures, options, progress, first_step)
    context = "fork" if options.workers else None  # the textures are shared, not copied
    return DataLoader(stream, batch_size=None, num_workers=options.workers, multiprocessing_context=context)


def _restored(options: TrainOptions) -> TrainState:
    torch.manual_seed(options.seed)
    network = (read_mini(options.start) if options.start else Mini(options.config)).to(options.device)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    in_bfloat16 = has_fast_bfloat16(torch.device(options.device))
    state = TrainState(network, deepcopy(network).eval().requires_grad_(False), optimizer, in_bfloat16)
    path = checkpoint_path(options)
    if not (options.resume and path.exists()):
        return state
    try:
        stored = torch.load(path, map_location=options.device, weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise InputError(f"{path} cannot be read as a checkpoint. Remove it to begin anew.") from error
    if stored["config"] != config_to_json(network.config):
        raise InputError(f"{path} was made with another network configuration. Remove it, or give another --output.")
    state.network.load_state_dict(stored["network"])
    state.average.load_state_dict(stored["average"])
    state.optimizer.load_state_dict(stored["optimizer"])
    state.step, state.pairs, state.elapsed_s, state.skipped = stored["counts"]
    return state


def _progress(state: TrainState, options: TrainOptions) -> float:
    if options.steps is not None:
        return state.step / options.steps
    return state.elapsed_s / (options.minutes * 60)


def _set_learning_rate(state: TrainState, options: TrainOptions, progress: float) -> None:
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate_at(progress, state.step, options.learning_rate)


@torch.no_grad()
def _update_average(state: TrainState) -> None:
    """Exponential average of weights and batch norm statistics, following faster while young."""
    decay = min(EMA_DECAY, (1 + state.step) / (10 + state.step))
    current = state.network.state_dict()
    averaged, live = [], []
    for key, value in state.average.state_dict().items():
        if value.is_floating_point():
            averaged.append(value)
            live.append(current[key])
        else:
            value.copy_(current[key])
    torch._foreach_lerp_(averaged, live, 1 - decay)


def _log(state: TrainState, options: TrainOptions, history: list[dict[str, float]]) -> None:
    """Append the means since the last line to the CSV log; losses that a phase lacks stay empty."""
    path = options.output.with_suffix(".csv")
    names = sorted({name for losses in history for name in losses} - {"loss"})
    means = {name: float(np.mean([losses[name] for losses in history if name in losses])) for name in ("loss", *names)}
    row: dict[str, Any] = {
        "step": state.step,
        "pairs": state.pairs,
        "elapsed_s": round(state.elapsed_s, 1),
        "skipped": state.skipped,
        "loss": round(means.pop("loss"), 4),
        "parts": json.dumps({name: round(value, 4) for name, value in means.items()}),
    }
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row)
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def _facts(state: TrainState, options: TrainOptions) -> dict[str, str]:
    recipe = {key: value for key, value in asdict(options).items() if key not in ("output", "config", "textures")}
    recipe["dtype"] = "bfloat16" if state.in_bfloat16 else "float32"
    recipe["start"] = sha256_of(options.start) if options.start else None
    facts = {"recipe": json.dumps(recipe), "steps": str(state.step), "pairs": str(state.pairs)}
    commit = _commit()
    return facts | {"elapsed_s": f"{state.elapsed_s:.0f}"} | ({"commit": commit} if commit else {})


def _commit() -> str | None:
    """The git commit of the code that trains, if it lies in a repository and git is there."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
