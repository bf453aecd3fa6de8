"""Options of the study of frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from romacli.errors import UsageError
from romacli.options import Option


def _names(text: str) -> tuple[str, ...]:
    names = tuple(word.strip() for word in text.split(",") if word.strip())
    if not names:
        raise UsageError("--features names none. Give some, such as mini-8,mini-16.")
    return names


@dataclass(frozen=True)
class StudyOptions:
    """Features and training of the study. width: output channels of the linear layer."""

    features: Annotated[
        tuple[str, ...],
        Option(
            "Frozen features: mini-8, mini-16 (its trunk at two strides), random-8, random-16 (the same untrained), "
            "xfeat, and with their weights vgg19=FILE, resnet50=FILE, dinov2=FILE.",
            metavar="NAME[=FILE],...",
            parse=_names,
        ),
    ] = ("mini-8", "mini-16", "random-8", "random-16")
    textures: Annotated[
        Path | None, Option("Photographs to paint training scenes with. Default: generated textures.", metavar="DIR")
    ] = None
    validation: Annotated[
        Path | None, Option("Others to paint the scenes with that are judged. Default: generated ones.", metavar="DIR")
    ] = None
    pairs: Annotated[int, Option("Rendered pairs to train on.", min=1)] = 256
    judged: Annotated[int, Option("Rendered pairs to judge by.", min=1)] = 64
    size: Annotated[int, Option("Side of the pictures in px.", min=64)] = 256
    steps: Annotated[int, Option("Steps of training, of four pairs each; 0 trains nothing.", min=0)] = 400
    width: Annotated[int, Option("Numbers that the linear layer makes of a place's features.", min=1)] = 128
    temperature: Annotated[
        float,
        Option("Of the kernel: smaller looks at the nearest alone. Our value; the paper's was not at hand.", min=1e-3),
    ] = 0.1
    repeats: Annotated[int, Option("Trainings with other seeds; figures are their mean and deviation.", min=1)] = 3
    seed: Annotated[int, Option("First seed of weights and pairs.", min=0)] = 0
