"""`romacli train`: weights for the small model from rendered pairs with exact warps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from romacli.cli.console import Console
from romacli.cli.options import TalkFlags, takes


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
    learning_rate: Annotated[float, typer.Option(help="Of AdamW, held first, then lowered along a cosine.")] = 2e-3
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights and the pairs.")] = 0
    workers: Annotated[int, typer.Option(min=0, help="Processes that render pairs.")] = 1
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the network.")] = 1
    device: Annotated[str, typer.Option(help="Where the network is trained, such as cpu or cuda.")] = "cpu"
    checkpoint_minutes: Annotated[float, typer.Option(help="Minutes between two checkpoints.")] = 2.0
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Weights to begin with. Default: random ones."),
    ] = None
    resume: Annotated[bool, typer.Option(help="Continue from the checkpoint beside the output.")] = True


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: romacli train -o mini.safetensors --textures textures/ --minutes 120")(train)


@takes(TrainFlags, TalkFlags)
def train(flags: TrainFlags, talk: TalkFlags) -> None:
    """Train the small model. The same command continues a training that was stopped."""
    from romacli.train.loop import TrainOptions, train

    with Console(quiet=talk.quiet, verbose=talk.verbose) as console:
        console.say(f"training for {flags.steps or flags.minutes} {'steps' if flags.steps else 'minutes'}")
        weights = train(TrainOptions(**vars(flags)))
        console.result({"weights": str(weights)}, f"weights in {weights}", as_json=talk.as_json)
