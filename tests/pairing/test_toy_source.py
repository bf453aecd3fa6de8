"""A new pair source is one file and one row: its options, its command and its refusals come with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import reload
from pathlib import Path
from typing import Annotated

import pytest
from support.plane import photograph_plane
from typer.testing import CliRunner

import romacli.cli.app
import romacli.cli.mapping.reconstruct
import romacli.cli.matching.match
import romacli.cli.matching.pairs
import romacli.job.options
import romacli.pairing.options
from romacli.options import Option
from romacli.pairing.source import Request, Source
from romacli.pairing.sources import SOURCES
from romacli.types import PairList


@dataclass(frozen=True)
class HubOptions:
    """Pair one image with all others."""

    hub: Annotated[int, Option("Which image, counted from 0.", min=0)] = 0


def find(options: HubOptions, request: Request) -> PairList:
    names = request.images.names
    return PairList(tuple((names[options.hub], name) for name in names if name != names[options.hub]))


HUB = Source("hub", HubOptions, find, "photos/ --hub 3", "Give two or more.")
MODULES = (
    romacli.pairing.options,
    romacli.job.options,
    romacli.cli.matching.pairs,
    romacli.cli.matching.match,
    romacli.cli.mapping.reconstruct,
    romacli.cli.app,
)


@pytest.fixture
def with_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The program with the added row in the table."""
    monkeypatch.setitem(SOURCES, HUB.name, HUB)
    for module in MODULES:
        reload(module)
    yield
    monkeypatch.undo()
    for module in MODULES:
        reload(module)


def test_a_row_gives_a_command_and_a_pairing(with_hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photograph_plane(tmp_path / "photos", [f"{number}.png" for number in range(4)])

    def run(*words: str) -> str:
        result = CliRunner().invoke(romacli.cli.app.app, words)
        return result.stdout + result.stderr

    assert run("pairs", "hub", "photos", "--hub", "2").splitlines()[0] == "2.png 0.png"
    assert "Pair one image with all others." in run("pairs", "--help")
    assert "Which image, counted from 0." in run("match", "--help")
    assert "--hub is an option of hub pairing" in run("match", "photos", "--hub", "2", "--dry-run")
    assert '"pairs": 3' in run("match", "photos", "--pairing", "hub", "--hub", "2", "--dry-run", "--json")
