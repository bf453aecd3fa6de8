"""`romacli train`: weights for the small model from rendered pairs with exact warps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from romacli.cli.console import Console
from romacli.cli.options import TalkFlags, takes
from romacli.errors import UsageError

if TYPE_CHECKING:
    from romacli.train.record import Validate

VALIDATION_PAIRS = 128  # the first half of the recipe: enough to choose by


@dataclass(frozen=True)
class TrainFlags:
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Weight file to write, *.safetensors; a log and a checkpoint lie beside it.",
        ),
    ]
    model: Annotated[str, typer.Option(help="Network to train: mini or roma.")] = "mini"
    data: Annotated[
        str,
        typer.Option(help="Where pairs come from: synthetic renders scenes; megadepth and scannet read --data-dir."),
    ] = "synthetic"
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Photographs with depth and pose, laid out as for DKM and RoMa."),
    ] = None
    smallest_window: Annotated[
        float, typer.Option(help="Share of each side of such a photograph that a random crop keeps at least.")
    ] = 1.0
    textures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Photographs to paint scenes with. Default: generated textures alone."),
    ] = None
    procedural: Annotated[int, typer.Option(min=0, help="Generated textures to add; each takes memory.")] = 100
    minutes: Annotated[float, typer.Option(help="Length of the schedule. Longer trains better.")] = 60.0
    steps: Annotated[
        int | None, typer.Option(min=1, help="Length of the schedule in steps, in place of --minutes.")
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs in a step; more are slower and take memory.")] = 8
    learning_rate: Annotated[
        float | None, typer.Option(help="Of AdamW, held first, then lowered. Default: the network's own.")
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights and the pairs.")] = 0
    workers: Annotated[int, typer.Option(min=0, help="Processes that render pairs.")] = 1
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the network.")] = 1
    device: Annotated[str, typer.Option(help="Where the network is trained, such as cpu or cuda.")] = "cpu"
    checkpoint_minutes: Annotated[float, typer.Option(help="Minutes between two checkpoints.")] = 2.0
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Weights to begin with. Default: random ones."),
    ] = None
    dinov2: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="DINOv2's published weights, for roma. Default: the downloaded ones."),
    ] = None
    vgg: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="torchvision's VGG19-BN weights, for roma to begin its fine features with."),
    ] = None
    validation: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Photographs, none of them among --textures, to judge the weights on; the best are kept. "
            "Default: the last weights count as the best.",
        ),
    ] = None
    validate_minutes: Annotated[float, typer.Option(help="Minutes between two validations.")] = 15.0
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="PX,...", help="Sides of the pairs in the phases of the schedule. Default: the network's own."
        ),
    ] = None
    resume: Annotated[bool, typer.Option(help="Continue from the checkpoint beside the output.")] = True


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: romacli train -o mini.safetensors --textures textures/ --minutes 120")(train)


@takes(TrainFlags, TalkFlags)
def train(flags: TrainFlags, talk: TalkFlags) -> None:
    """Train the small model, or RoMa. The same command continues a training that was stopped.

    On several devices, start it as `torchrun --nproc-per-node N -m romacli train ...`.
    """
    from romacli.train.loop import train
    from romacli.train.options import TrainOptions
    from romacli.train.ranks import is_first_process

    given: dict[str, Any] = {**vars(flags), "sizes": _sides(flags.sizes)}
    folder = given.pop("validation")
    with Console(quiet=talk.quiet or not is_first_process(), verbose=talk.verbose) as console:
        validate = None
        if folder is not None and is_first_process():
            console.say("rendering pairs to validate on")
            validate = _validation(folder, model=flags.model, textures=flags.textures)
        console.say(f"training for {flags.steps or flags.minutes} {'steps' if flags.steps else 'minutes'}")
        state = train(TrainOptions(**given), validate=validate, say=console.say)
        if not is_first_process():
            return
        if state.skipped:
            console.warn(f"{state.skipped} of {state.step} steps were skipped: their gradient was not finite.")
        result = {"weights": str(flags.output), "steps": state.step, "pairs": state.pairs, "skipped": state.skipped}
        console.result(result, f"weights in {flags.output}", as_json=talk.as_json)


def _sides(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    sides = text.split(",")
    if not all(side.strip().isdecimal() for side in sides):
        raise UsageError(f"--sizes {text} is not a list of whole numbers, such as 192,224,320.")
    return tuple(int(side) for side in sides)


def _validation(folder: Path, *, model: str, textures: Path | None) -> Validate:
    """Judge on the fixed recipe, painted with photographs that training does not see."""
    from romacli.eval.synthetic import evaluate, evaluate_matcher, validation_pairs, validation_textures
    from romacli.matchers.roma import in_training

    if textures is not None and _overlap(folder.resolve(), textures.resolve()):
        raise UsageError("--validation and --textures overlap: what is trained on judges nothing. Give two folders.")
    pairs = validation_pairs(validation_textures(folder), VALIDATION_PAIRS)

    def validate(network: Any) -> Mapping[str, float]:
        if model == "mini":
            return evaluate(network, pairs).figures
        matcher: Any = in_training(network)
        return evaluate_matcher(matcher, pairs).figures

    return validate


def _overlap(folder: Path, other: Path) -> bool:
    return folder.is_relative_to(other) or other.is_relative_to(folder)
