"""What changes while training, and how it is kept: checkpoints and weight files, whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch

from romacli.errors import InputError
from romacli.networks.weights import sha256_of

from .options import TrainOptions
from .trainable import Trainable, average_into

EMA_DECAY = 0.996
WARM_UP_STEPS = 100
NOT_IN_THE_RECIPE = ("output", "config", "textures", "data_dir", "dinov2", "vgg", "resnet", "resume")


@dataclass
class TrainState:
    """All that changes while training; what a checkpoint holds.

    Attributes:
        best: the deciding figure of the best validation so far.
        validated_step: the step after which the weights were last judged.
    """

    trainable: Trainable
    average: Trainable
    optimizer: torch.optim.Optimizer
    highest_rates: list[float]
    step: int = 0
    pairs: int = 0
    elapsed_s: float = 0.0
    skipped: int = 0
    best: float | None = None
    validated_step: int = -1

    def progress(self, options: TrainOptions) -> float:
        """Return the fraction of the schedule that is done."""
        if options.steps is not None:
            return self.step / options.steps
        return self.elapsed_s / (options.minutes * 60)

    def set_learning_rate(self, progress: float) -> None:
        """Follow the network's schedule, behind a linear warm-up in steps."""
        share = min(1.0, (self.step + 1) / WARM_UP_STEPS) * self.trainable.rate_at(progress)
        for group, highest in zip(self.optimizer.param_groups, self.highest_rates, strict=True):
            group["lr"] = highest * share

    def update_average(self) -> None:
        """Follow the weights with an exponential average, faster while young."""
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        average_into(self.average, self.trainable, 1 - decay)

    @torch.no_grad()
    def repair_statistics(self) -> None:
        """Put averages in the place of batch norm statistics that a bad batch has left not finite."""
        averages = dict(self.average.network.named_buffers())
        for name, buffer in self.trainable.network.named_buffers():
            if not torch.isfinite(buffer).all():
                buffer.copy_(averages[name])


_COUNTS = ("step", "pairs", "elapsed_s", "skipped", "best", "validated_step")


def checkpoint_path(output: Path) -> Path:
    """Return where a run keeps its state."""
    return output.with_suffix(".checkpoint.pt")


def best_path(output: Path) -> Path:
    """Return where a run with validation keeps its best weights."""
    return output.with_suffix(".best.safetensors")


def restored(options: TrainOptions, trainable: Trainable) -> TrainState:
    """Return the state of a run's checkpoint, or that of its beginning.

    Raises:
        InputError: the checkpoint is damaged, or of another network.
    """
    groups = trainable.parameter_groups()
    optimizer = torch.optim.AdamW(groups, betas=trainable.betas, weight_decay=0.01, fused=True)
    state = TrainState(trainable, trainable.copied(), optimizer, [group["lr"] for group in groups])
    path = checkpoint_path(options.output)
    if not (options.resume and path.exists()):
        return state
    device = next(trainable.parameters()).device
    try:
        stored = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise InputError(f"{path} cannot be read as a checkpoint. Remove it to begin anew.") from error
    if stored.get("fingerprint") != trainable.fingerprint():
        raise InputError(f"{path} was made with another network configuration. Remove it, or give another --output.")
    trainable.restore(stored["network"])
    state.average.restore(stored["average"])
    optimizer.load_state_dict(stored["optimizer"])
    for name in _COUNTS:
        setattr(state, name, stored[name])
    return state


def save_checkpoint(state: TrainState, output: Path) -> None:
    """Save all of the state beside the output."""
    path = checkpoint_path(output)
    temporary = path.with_name(path.name + ".partial")
    torch.save(
        {
            "network": state.trainable.trained(),
            "average": state.average.trained(),
            "optimizer": state.optimizer.state_dict(),
            "fingerprint": state.trainable.fingerprint(),
            **{name: getattr(state, name) for name in _COUNTS},
        },
        temporary,
    )
    os.replace(temporary, path)


def export(state: TrainState, options: TrainOptions, path: Path) -> None:
    """Write the averaged weights to a file that matchers read, with how they came about."""
    replace_file(path, state.average.exported(_facts(state, options)))


def replace_file(path: Path, content: bytes) -> None:
    """Give a file new content, all or nothing."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _facts(state: TrainState, options: TrainOptions) -> dict[str, str]:
    recipe = {key: value for key, value in asdict(options).items() if key not in NOT_IN_THE_RECIPE}
    recipe |= {
        "learning_rate": state.highest_rates[0],
        "sizes": state.trainable.sizes,
        "dtype": state.trainable.precision,
    }
    recipe["start"] = sha256_of(options.start) if options.start else None
    facts = {"recipe": json.dumps(recipe), "steps": str(state.step), "pairs": str(state.pairs)}
    commit = _commit()
    return facts | {"elapsed_s": f"{state.elapsed_s:.0f}"} | ({"commit": commit} if commit else {})


def _commit() -> str | None:
    """The git commit of the code that trains, if it lies in a repository and git is there."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
