"""Programs outside the package, which few tests run, still find what they import from it."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PROGRAMS = sorted([*(REPOSITORY / "examples").glob("*.py"), *(REPOSITORY / "tests" / "benchmarks").glob("*.py")])


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_what_a_program_imports_from_the_package_is_there(program: Path) -> None:
    missing = []
    for node in ast.walk(ast.parse(program.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("romacli", "support"):
            module = import_module(node.module or "")
            for alias in node.names:
                try:
                    getattr(module, alias.name)
                except AttributeError:
                    try:
                        import_module(f"{node.module}.{alias.name}")
                    except ImportError:
                        missing.append(f"line {node.lineno}: {node.module}.{alias.name}")
    assert not missing
