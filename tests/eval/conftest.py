"""Fixtures shared by the tests of benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """The folder of each benchmark and the matcher that knows it, made on demand by the module's WRITERS."""

    class Written(dict[str, tuple[Path, Any]]):
        def __missing__(self, name: str) -> tuple[Path, Any]:
            root = tmp_path_factory.mktemp(name)
            self[name] = root, request.module.WRITERS[name](root)
            return self[name]

    return Written()
