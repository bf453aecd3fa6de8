"""The state of a training run, and its files: checkpoints and weights, written atomically."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch

from romacli.disk import settle, write_whole, written_whole
from romacli.errors import InputError
from romacli.networks.weights import sha256_of

from .muon import Muon
from .options import TrainOptions
from .trainable import Trainable, average_into

EMA_DECAY = 0.996
WARM_UP_STEPS = 100
NOT_IN_THE_RECIPE = ("output", "config", "textures", "data_dir", "jobs", "dinov2", "vgg", "resnet", "resume")


@dataclass
class TrainState:
    """Everything that changes during training; the content of a checkpoint.

    Attributes:
        best: the deciding figure of the best validation so far.
        validated_step: the step of the last validation.
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
        """Return the completed fraction of the schedule."""
        if options.steps is not None:
            return self.step / options.steps
        return self.elapsed_s / (options.minutes * 60)

    def set_learning_rate(self, progress: float) -> None:
        """Follow the network's schedule, after a linear warm-up in steps."""
        share = min(1.0, (self.step + 1) / WARM_UP_STEPS) * self.trainable.rate_at(progress)
        for group, highest in zip(self.optimizer.param_groups, self.highest_rates, strict=True):
            group["lr"] = highest * share

    def update_average(self) -> None:
        """Update the exponential average of the weights, faster at first."""
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        average_into(self.average, self.trainable, 1 - decay)

    @torch.no_grad()
    def repair_statistics(self) -> None:
        """Replace batch norm statistics that a bad batch has made non-finite by their averages."""
        averages = dict(self.average.network.named_buffers())
        for name, buffer in self.trainable.network.named_buffers():
            if not torch.isfinite(buffer).all():
                buffer.copy_(averages[name])


_COUNTS = ("step", "pairs", "elapsed_s", "skipped", "best", "validated_step")


def checkpoint_path(output: Path) -> Path:
    """Return the path of a run's checkpoint."""
    return output.with_suffix(".checkpoint.pt")


def best_path(output: Path) -> Path:
    """Return the path of the best weights of a run with validation."""
    return output.with_suffix(".best.safetensors")


def restored(options: TrainOptions, trainable: Trainable) -> TrainState:
    """Return the state in a run's checkpoint, or the initial one.

    Raises:
        InputError: the checkpoint is damaged, or of another network.
    """
    groups = trainable.parameter_groups()
    precision = torch.bfloat16 if trainable.precision == "bfloat16" else torch.float32
    optimizer = Muon(groups, precision=precision, betas=trainable.betas, weight_decay=0.01, fused=True)
    state = TrainState(trainable, trainable.copied(), optimizer, [group["lr"] for group in groups])
    path = checkpoint_path(options.output)
    if not (options.resume and path.exists()):
        return state
    device = next(trainable.parameters()).device
    try:
        stored = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise InputError(f"{path} cannot be read as a checkpoint. Remove it to start again.") from error
    if stored.get("fingerprint") != trainable.fingerprint():
        raise InputError(f"{path} was made with another network or optimiser. Remove it, or give another --output.")
    trainable.restore(stored["network"])
    state.average.restore(stored["average"])
    optimizer.load_state_dict(stored["optimizer"])
    for name in _COUNTS:
        setattr(state, name, stored[name])
    return state


def save_checkpoint(state: TrainState, output: Path) -> None:
    """Save the whole state next to the output.

    Raises:
        StoreError: it cannot be written.
    """
    content = {
        "network": state.trainable.trained(),
        "average": state.average.trained(),
        "optimizer": state.optimizer.state_dict(),
        "fingerprint": state.trainable.fingerprint(),
        **{name: getattr(state, name) for name in _COUNTS},
    }
    with written_whole(checkpoint_path(output)) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError:
            settle(temporary)  # which tells if it is for want of room
            raise


def export(state: TrainState, options: TrainOptions, path: Path) -> None:
    """Write the averaged weights, with their recipe, to a file that matchers can load."""
    write_whole(path, state.average.exported(_facts(state, options)))


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
    """The git commit of the training code, if it is in a repository and git is installed."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.decode().strip()
