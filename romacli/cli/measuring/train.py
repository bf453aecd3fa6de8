"""`romacli train`: train networks, on rendered pairs with exact warps or on data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from romacli.cli.console import Console
from romacli.cli.options import TalkOptions, takes
from romacli.errors import UsageError
from romacli.options import Option
from romacli.train.options import TrainOptions
from romacli.words import counted

if TYPE_CHECKING:
    from romacli.train.record import Validate

VALIDATION_PAIRS = 128  # the first half of the validation set, enough to select weights


@dataclass(frozen=True)
class Judging:
    validation: Annotated[
        Path | None,
        Option(
            "Photographs for validation, none of them in --textures; the best weights are kept. Default: the last "
            "weights count as the best.",
            metavar="DIR",
        ),
    ] = None


@dataclass(frozen=True)
class Rehearsing:
    dry_run: Annotated[
        bool, Option("Take two steps, then print the number of steps, time per step, memory and disk; keep nothing.")
    ] = False


@takes(
    TrainOptions,
    Judging,
    Rehearsing,
    TalkOptions,
    example="romacli train -o mini.safetensors --textures textures/ --minutes 120",
)
def train(options: TrainOptions, judging: Judging, rehearsing: Rehearsing, talk: TalkOptions) -> None:
    """Train the small model, RoMa, or MATCHA's fusion network on the small model's features.

    Run the same command again to resume a stopped training.

    To train the small model further on photographs of your own, reconstruct them, write their depth maps with `romacli
    densify --depth-maps`, and give the job with --jobs and the included weights with --from mini.

    On several devices, run `torchrun --nproc-per-node N -m romacli train ...`.
    """
    from romacli.matchers.adapters.mini import EMBEDDED
    from romacli.train.loop import train
    from romacli.train.ranks import is_first_process

    folder = judging.validation
    if options.start == Path("mini"):
        options = replace(options, start=EMBEDDED)
    with Console(replace(talk, quiet=talk.quiet or not is_first_process())) as console:
        if rehearsing.dry_run:
            _rehearse(options, console)
            return
        validate = None
        if folder is not None and is_first_process():
            console.say("rendering validation pairs")
            validate = _validation(folder, model=options.model, textures=options.textures)
        console.say(
            f"training for {counted(options.steps, 'step') if options.steps else f'{options.minutes:g} minutes'}"
        )
        state = train(options, validate=validate, say=console.say)
        if not is_first_process():
            return
        if state.skipped:
            console.warn(f"{state.skipped} of {state.step} steps were skipped because their gradient was not finite.")
        result = {"weights": str(options.output), "steps": state.step, "pairs": state.pairs, "skipped": state.skipped}
        console.result(result, f"weights in {options.output}")


def _rehearse(options: TrainOptions, console: Console) -> None:
    from romacli.train.rehearsal import rehearse

    found = rehearse(options)
    console.result(
        asdict(found),
        f"{found.steps:,} steps on {found.pairs:,} pairs, at most {found.seconds_per_step:.3g} s each: "
        f"{found.steps * found.seconds_per_step / 3600:.1f} h; {found.parameters / 1e6:.1f} million parameters, "
        f"{found.memory_gb:.2f} GB of memory, {found.disk_gb:.2f} GB of disk",
    )


def _validation(folder: Path, *, model: str, textures: Path | None) -> Validate:
    """Validation on fixed scenes, textured with photographs that training does not see."""
    from romacli.eval.synthetic import evaluate, evaluate_matcher, matched_share, validation_pairs, validation_textures
    from romacli.matchers.adapters.roma import in_training

    if textures is not None and _overlap(folder.resolve(), textures.resolve()):
        raise UsageError(
            "--validation and --textures overlap, so validation would see training data. Give separate folders."
        )
    pairs = validation_pairs(validation_textures(folder), VALIDATION_PAIRS)
    judges: dict[str, Callable[[Any], Mapping[str, float]]] = {
        "mini": lambda network: evaluate(network, pairs).figures,
        "roma": lambda network: evaluate_matcher(in_training(network), pairs).figures,
        "fusion": lambda network: {
            "matched": matched_share(network.described, pairs),
            "joined": matched_share(network.joined, pairs),
        },
    }
    return judges[model]


def _overlap(folder: Path, other: Path) -> bool:
    return folder.is_relative_to(other) or other.is_relative_to(folder)
