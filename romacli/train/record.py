"""The files written during training: the log, checkpoints, and the best weights."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from romacli.disk import check_writable, write_whole
from romacli.errors import InputError

from .options import TrainOptions
from .state import TrainState, best_path, export, save_checkpoint

LOG_EVERY_STEPS = 50

Validate = Callable[[nn.Module], Mapping[str, float]]
"""Evaluates a network in evaluation mode. The first figure selects the best weights; larger is better."""


class Record:
    """The files next to a run's output, updated during training."""

    def __init__(self, options: TrainOptions, validate: Validate | None, say: Callable[[str], None]) -> None:
        self._options = options
        self._validate = validate
        self._say = say
        self._losses: list[dict[str, Tensor]] = []
        self._saved = self._validated = time.monotonic()
        check_writable(options.output)

    def add(self, state: TrainState, losses: dict[str, Tensor] | None) -> None:
        """Add the losses of a step, None if it was skipped, and write whatever is due."""
        if losses is not None:
            self._losses.append(losses)
        now = time.monotonic()
        if self._validate is not None and now - self._validated >= self._options.validate_minutes * 60:
            self._judge(state)
        elif state.step % LOG_EVERY_STEPS == 0:
            self._log(state, {})
        if now - self._saved >= self._options.checkpoint_minutes * 60:
            self._save(state)

    def finish(self, state: TrainState) -> None:
        """Write everything that remains; if validated, the output then contains the best weights."""
        if state.validated_step != state.step:
            self._judge(state)
        self._save(state)
        if self._validate is not None and state.best is not None:
            write_whole(self._options.output, best_path(self._options.output).read_bytes())

    def _save(self, state: TrainState) -> None:
        save_checkpoint(state, self._options.output)
        export(state, self._options, self._options.output)
        self._saved = time.monotonic()

    def _judge(self, state: TrainState) -> None:
        figures = self._validate(state.average.network) if self._validate is not None else {}
        state.validated_step = state.step
        if figures:
            decisive = next(iter(figures.values()))
            if not math.isnan(decisive) and (state.best is None or decisive > state.best):
                state.best = decisive
                export(state, self._options, best_path(self._options.output))
            told = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
            self._say(f"step {state.step}, {state.pairs} pairs: {told}")
        self._log(state, figures)
        self._validated = time.monotonic()

    def _log(self, state: TrainState, figures: Mapping[str, float]) -> None:
        """Append the mean losses since the last line, and a validation's figures, to the CSV log."""
        if not (self._losses or figures):
            return
        names = dict.fromkeys(name for losses in self._losses for name in losses)
        means = {name: torch.stack([x[name] for x in self._losses if name in x]).mean().item() for name in names}
        self._losses.clear()
        row = {
            "step": state.step,
            "pairs": state.pairs,
            "elapsed_s": round(state.elapsed_s, 1),
            "skipped": state.skipped,
            "learning_rate": f"{state.optimizer.param_groups[0]['lr']:.3g}",
        }
        measured = {name: f"{value:.5g}" for name, value in {**means, **figures}.items()}
        append_row(self._options.output.with_suffix(".csv"), row | measured)


def append_row(path: Path, row: Mapping[str, object]) -> None:
    """Append a row to a CSV file; new columns are added, and are empty in earlier rows.

    Raises:
        InputError: the file is not such a log.
        StoreError: it cannot be written.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a log of a training run. Move it away, or give another --output.") from error
    rows = csv.reader(io.StringIO(text))
    columns = next(rows, [])
    wanted = [*columns, *(name for name in row if name not in columns)]
    former = [[*old, *[""] * (len(wanted) - len(old))] for old in rows]
    write_whole(path, _as_csv([wanted, *former, [row.get(name, "") for name in wanted]]))


def _as_csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
