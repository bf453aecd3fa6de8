"""What a training is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from romacli.errors import UsageError
from romacli.networks.mini import MiniConfig
from romacli.networks.roma import RoMaConfig

MODELS = ("mini", "roma")
DATA = ("synthetic", "megadepth", "scannet")


@dataclass(frozen=True)
class TrainOptions:
    """What `train` needs to know; the defaults are the recipe of the shipped weights.

    Attributes:
        output: the weight file to write, *.safetensors; a .csv log and a .checkpoint.pt lie beside it, and
            with validation the best weights so far as .best.safetensors.
        model: which network: a name in `MODELS`.
        data: where pairs come from: a name in `DATA`.
        data_dir: folder of photographs with depth and pose, for all `data` but synthetic.
        smallest_window: share of each side of such a photograph that a random window keeps at least.
        textures: folder of photographs to paint scenes with; None uses procedural textures alone.
        procedural: how many generated textures to add.
        minutes: length of the schedule in wall-clock time.
        steps: length of the schedule in steps instead; overrides `minutes`.
        sizes: px, sides of the training pairs in the phases of the schedule; None for the network's own.
        batch_size: pairs a step on each device, each used in both directions.
        learning_rate: of AdamW at its highest; None for the network's own.
        seed: of the weights and of the pairs.
        workers: processes that make pairs; 0 makes them between the steps.
        threads: CPU threads of the network.
        device: where the network lives, such as cpu or cuda.
        checkpoint_minutes: how often the state is saved.
        validate_minutes: how often the averaged weights are judged.
        start: weights to begin with in place of random ones; mini takes their configuration.
        dinov2: DINOv2's published weights, which RoMa is built on; None for the downloaded ones.
        vgg: torchvision's VGG19-BN weights for RoMa's fine features to begin with; None begins at random.
        resume: continue from the checkpoint beside `output` if there is one.
        config: widths and depths of the network.
    """

    output: Path
    model: str = "mini"
    data: str = "synthetic"
    data_dir: Path | None = None
    smallest_window: float = 1.0
    textures: Path | None = None
    procedural: int = 100
    minutes: float = 60.0
    steps: int | None = None
    sizes: tuple[int, ...] | None = None
    batch_size: int = 8
    learning_rate: float | None = None
    seed: int = 0
    workers: int = 1
    threads: int = 1
    device: str = "cpu"
    checkpoint_minutes: float = 2.0
    validate_minutes: float = 15.0
    start: Path | None = None
    dinov2: Path | None = None
    vgg: Path | None = None
    resume: bool = True
    config: MiniConfig | RoMaConfig | None = None


def check(options: TrainOptions) -> None:
    """Refuse what cannot be trained.

    Raises:
        UsageError: there is nothing to train on, or no time to train.
    """
    if options.model not in MODELS:
        raise UsageError(f"--model {options.model} is not known. Known: {', '.join(MODELS)}.")
    if options.model != "roma" and (options.dinov2 or options.vgg):
        raise UsageError(f"--dinov2 and --vgg are parts of RoMa, not of {options.model}. Leave them out.")
    if options.data not in DATA:
        raise UsageError(f"--data {options.data} is not known. Known: {', '.join(DATA)}.")
    if (options.data == "synthetic") != (options.data_dir is None):
        raise UsageError("--data megadepth and --data scannet need --data-dir DIR, --data synthetic goes without.")
    if options.data != "synthetic" and options.textures is not None:
        raise UsageError(f"--textures paints the scenes of --data synthetic, not {options.data}. Leave one out.")
    if not 0 < options.smallest_window <= 1:
        raise UsageError(f"--smallest-window {options.smallest_window:g} is no share. Give more than 0, at most 1.")
    if options.steps is None and options.minutes <= 0:
        raise UsageError(f"--minutes {options.minutes:g} leaves no time to train. Give a positive number.")
    if options.data == "synthetic" and options.textures is None and options.procedural == 0:
        raise UsageError("--procedural 0 without --textures leaves nothing to paint scenes with. Give either.")
