"""Options of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from romacli.errors import UsageError
from romacli.options import Option

MODELS = ("mini", "roma", "fusion")
COARSE = "coarse"
DATA = ("synthetic", "megadepth", "scannet")


def _sides(text: str) -> tuple[int, ...]:
    sides = text.split(",")
    if not all(side.strip().isdecimal() for side in sides):
        raise UsageError(f"--sizes {text} is not a list of whole numbers, such as 192,224,320.")
    return tuple(int(side) for side in sides)


@dataclass(frozen=True)
class TrainOptions:
    """Settings of `train`; the defaults are the recipe of the included weights. None is the network's own value.

    output: a .csv log and a .checkpoint.pt are next to it, and with validation the best weights so far as
        .best.safetensors. hard, changed: see `romacli.synthetic.school`. curriculum: see
        `romacli.synthetic.curriculum`. jobs, photographs: see `romacli.train.data.jobs`.
        batch_size: on each device; each pair is used in both directions. workers: 0 computes pairs between the steps.
        start: mini takes the configuration of these weights, and adds its attention to context to weights without it.
        config: widths and depths of the network, a MiniConfig, RoMaConfig or FusionConfig.
    """

    output: Annotated[
        Path,
        Option("Weight file to write, *.safetensors; a log and a checkpoint lie beside it.", metavar="FILE", short="o"),
    ]
    model: Annotated[str, Option("Network to train: mini, roma, or fusion, MATCHA's over mini's features.")] = "mini"
    setup: Annotated[
        str | None,
        Option("Row of the RoMa paper's ablations to train, of mini or roma: I to VIII.", metavar="ROW"),
    ] = None
    part: Annotated[
        str | None,
        Option(
            "Part of mini to train, in trained weights: coarse, all up to the first warp. Default: all.", metavar="PART"
        ),
    ] = None
    data: Annotated[
        str, Option("Where pairs come from: synthetic renders scenes; megadepth and scannet read --data-dir.")
    ] = "synthetic"
    data_dir: Annotated[
        Path | None, Option("Photographs with depth and pose, laid out as for DKM and RoMa.", metavar="DIR")
    ] = None
    smallest_window: Annotated[
        float, Option("Minimum fraction of each side of such a photograph that a random crop keeps.")
    ] = 1.0
    textures: Annotated[
        Path | None,
        Option("Photographs used as textures of the scenes. Default: generated textures only.", metavar="DIR"),
    ] = None
    procedural: Annotated[int, Option("Number of generated textures to add; each takes memory.", min=0)] = 100
    hard: Annotated[
        float,
        Option(
            "Fraction of rendered pairs with turns of up to 80 degrees, scales of up to 4, repeated motifs, railings, "
            "or one picture at night.",
            min=0,
            max=1,
        ),
    ] = 0.0
    changed: Annotated[
        float,
        Option(
            "Fraction of rendered pairs whose sky, passers-by, colours and contrast differ between the pictures.",
            min=0,
            max=1,
        ),
    ] = 0.0
    jobs: Annotated[
        Path | None,
        Option("Job with depth maps (densify --depth-maps), or folder of such jobs, for --photographs.", metavar="DIR"),
    ] = None
    photographs: Annotated[
        float,
        Option(
            "Fraction of pairs that are photographs of --jobs, cropped and in other light, matched by what their "
            "neighbours agree on.",
            min=0,
            max=1,
        ),
    ] = 0.0
    curriculum: Annotated[
        bool,
        Option("Draw most of the rendered pairs whose change of scale and angle mini half masters."),
    ] = False
    minutes: Annotated[float, Option("Length of the schedule in minutes. Longer trains better.")] = 60.0
    steps: Annotated[int | None, Option("Length of the schedule in steps, instead of --minutes.", min=1)] = None
    sizes: Annotated[
        tuple[int, ...] | None,
        Option(
            "Sides of the pairs in the phases of the schedule. mini has three; with two, its default with --from, it "
            "leaves out the last, of two passes. Default: the network's own.",
            metavar="PX,...",
            parse=_sides,
        ),
    ] = None
    batch_size: Annotated[int, Option("Pairs per step; more are slower and take memory.", min=1)] = 8
    learning_rate: Annotated[
        float | None,
        Option("Peak learning rate, constant at first, then decayed. Default: the network's own."),
    ] = None
    seed: Annotated[int, Option("Seed of the weights and the pairs.", min=0)] = 0
    workers: Annotated[int, Option("Processes that render pairs.", min=0)] = 1
    threads: Annotated[int, Option("CPU threads of the network.", min=1)] = 1
    device: Annotated[str, Option("Device to train on, such as cpu or cuda.")] = "cpu"
    checkpoint_minutes: Annotated[float, Option("Minutes between checkpoints.")] = 2.0
    validate_minutes: Annotated[float, Option("Minutes between validations.")] = 15.0
    start: Annotated[
        Path | None,
        Option(
            "Weights to start from; mini means the included ones. Default: random ones.", metavar="FILE", name="from"
        ),
    ] = None
    dinov2: Annotated[
        Path | None, Option("DINOv2's published weights, for roma. Default: the downloaded ones.", metavar="FILE")
    ] = None
    vgg: Annotated[
        Path | None,
        Option("torchvision's VGG19-BN weights to initialise roma's fine features.", metavar="FILE"),
    ] = None
    resnet: Annotated[
        Path | None,
        Option("torchvision's ResNet-50 weights, for roma's setups I to IV to begin with.", metavar="FILE"),
    ] = None
    resume: Annotated[bool, Option("Continue from the checkpoint beside the output.", negatable=True)] = True
    config: Any = None


def check(options: TrainOptions) -> None:
    """Refuse options that cannot be trained.

    Raises:
        UsageError: there is nothing to train on, or no time to train.
    """
    if options.output.is_dir():
        raise UsageError(f"--output {options.output} is a folder. Give the weight file to write, *.safetensors.")
    _check_network(options)
    if options.data not in DATA:
        raise UsageError(f"--data {options.data} is not known. Known: {', '.join(DATA)}.")
    if (options.data == "synthetic") != (options.data_dir is None):
        raise UsageError("--data megadepth and --data scannet need --data-dir DIR; --data synthetic takes none.")
    if options.data != "synthetic" and options.textures is not None:
        raise UsageError(f"--textures is for the scenes of --data synthetic, not {options.data}. Leave one out.")
    if not 0 < options.smallest_window <= 1:
        raise UsageError(
            f"--smallest-window {options.smallest_window:g} is not a fraction. Give more than 0, at most 1."
        )
    if options.hard + options.changed > 1:
        raise UsageError(
            f"--hard {options.hard:g} and --changed {options.changed:g} are fractions of the same pairs. "
            "Give at most 1 together."
        )
    if (options.jobs is None) != (options.photographs == 0):
        raise UsageError("--jobs and --photographs go together: the jobs, and the fraction of pairs. Give both.")
    if options.jobs and (options.model != "mini" or options.data != "synthetic"):
        raise UsageError("--jobs adds photographs to the rendered pairs for mini. Leave it out.")
    if options.curriculum and (options.model != "mini" or options.data != "synthetic"):
        raise UsageError("--curriculum chooses among rendered pairs for mini. Leave it out.")
    if options.steps is None and options.minutes <= 0:
        raise UsageError(f"--minutes {options.minutes:g} leaves no time to train. Give a positive number.")
    if options.data == "synthetic" and options.textures is None and options.procedural == 0:
        raise UsageError("--procedural 0 without --textures leaves no textures for the scenes. Give either.")


def _check_network(options: TrainOptions) -> None:
    if options.model not in MODELS:
        raise UsageError(f"--model {options.model} is not known. Known: {', '.join(MODELS)}.")
    if options.model != "roma" and (options.dinov2 or options.vgg or options.resnet):
        raise UsageError(f"--dinov2, --vgg and --resnet are parts of RoMa, not of {options.model}. Leave them out.")
    if options.setup is not None and options.model == "fusion":
        raise UsageError("--setup is a row of RoMa's ablations, which do not include fusion. Leave it out.")
    if options.part not in (None, COARSE):
        raise UsageError(f"--part {options.part} is not known. Give {COARSE}, or leave it out to train all.")
    if options.part and (options.model != "mini" or options.start is None):
        raise UsageError(f"--part {options.part} trains that part of mini in trained weights. Give them with --from.")
