"""Command parameters are built from the options that dataclasses declare."""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

import romacli.cli.app
from romacli.cli.options import takes
from romacli.options import Option


class Colour(StrEnum):
    red = "red"
    green = "green"


def _sides(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))


@dataclass(frozen=True)
class Lens:
    model: Annotated[str, Option("Lens model.", name="lens-model")] = "thin"
    start: Annotated[Path | None, Option("Where to begin.", name="from", metavar="FILE")] = None
    hidden_of_users: int = 7


@dataclass(frozen=True)
class Camera:
    model: Annotated[str, Option("Camera model.")] = "box"
    lens: Lens = Lens()
    size: Annotated[tuple[int, ...] | None, Option("Size.", metavar="WxH", parse=_sides)] = None
    colours: Annotated[tuple[Colour, ...], Option("Colours.", name="colour", parse=Colour, many=True)] = ()
    seed: Annotated[int, Option("Seed.", min=0)] = 0
    typed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Other:
    seed: Annotated[int, Option("Seed.", min=0)] = 0
    is_bright: Annotated[bool, Option("Bright.", name="bright", negatable=True, short="b")] = True


def called(*words: str) -> tuple[Camera, Other]:
    app, calls = typer.Typer(), []

    @app.command()
    @takes(Camera, Other)
    def command(camera: Camera, other: Other) -> None:
        calls.append((camera, other))

    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return calls[0]


def test_nested_options_are_flat_and_come_back_nested() -> None:
    camera, other = called("--model", "slr", "--lens-model", "thick", "--from", "a.txt", "--no-bright", "--seed", "3")
    assert camera.model == "slr"
    assert camera.lens == Lens("thick", Path("a.txt"))
    assert other == Other(seed=3, is_bright=False)
    assert camera.seed == 3, "one option that two dataclasses declare is given to both"


def test_values_are_as_the_room_reads_them() -> None:
    camera, _ = called("--size", "3x4", "--colour", "red", "--colour", "green")
    assert camera.size == (3, 4)
    assert camera.colours == (Colour.red, Colour.green)
    assert called()[0] == Camera()


def test_what_was_typed_is_told_by_field_also_of_nested_dataclasses() -> None:
    assert called("--lens-model", "thin", "--seed", "0")[0].typed == {"model", "seed"}
    assert called()[0].typed == frozenset()


def _declarations(group: Any) -> list[Option]:
    found = []
    for hint in get_type_hints(group, include_extras=True).values():
        found += [note for note in get_args(hint)[1:] if isinstance(note, Option)]
        if isinstance(hint, type) and is_dataclass(hint):
            found += _declarations(hint)
    return found


@pytest.mark.parametrize("command", ["match", "reconstruct", "train", "bench"])
def test_every_option_of_a_dataclass_reaches_its_command(command: str) -> None:
    from romacli.job.options import ImportOptions, JobOptions
    from romacli.mapping.options import MapperOptions
    from romacli.matchers.options import MatcherChoice
    from romacli.train.options import TrainOptions

    groups = {
        "match": [JobOptions],
        "reconstruct": [JobOptions, ImportOptions, MapperOptions],
        "train": [TrainOptions],
        "bench": [MatcherChoice],
    }[command]
    parameters = typer.main.get_command(romacli.cli.app.app).commands[command].params
    helps = [parameter.help for parameter in parameters if getattr(parameter, "help", None)]
    for group in groups:
        for option in _declarations(group):
            assert option.hidden or option.help in helps
