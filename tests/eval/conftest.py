"""Fixtures shared by the tests of benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.matchers.registry import MATCHERS
from romacli.types import MatcherSpec


@pytest.fixture(scope="module")
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """The folder of each benchmark and the matcher that knows it, made on demand by the module's WRITERS."""

    class Written(dict[str, tuple[Path, Any]]):
        def __missing__(self, name: str) -> tuple[Path, Any]:
            root = tmp_path_factory.mktemp(name)
            self[name] = root, request.module.WRITERS[name](root)
            return self[name]

    return Written()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `romacli eval` with a matcher."""

    def run_with(matcher: Any, *words: object) -> Result:
        monkeypatch.setitem(MATCHERS, "truth", MatcherSpec("truth", lambda options, name: matcher, "knows", "MIT"))
        return CliRunner().invoke(app, ["eval", *map(str, words), "--model", "truth"])

    return run_with
