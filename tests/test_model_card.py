"""The page of the bundled model describes the weights in the package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from safetensors import safe_open

from romacli.matchers.adapters.mini import EMBEDDED
from romacli.networks.weights import sha256_of

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "man" / "romacli-mini.7").read_text(encoding="utf-8")


def program(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_steps_pairs_and_digest_are_those_of_the_weights():
    with safe_open(str(EMBEDDED), framework="pt") as file:
        facts = file.metadata()
    lines = [line.split() for line in PAGE.splitlines()]
    assert ["steps", f"{int(facts['steps']):,}"] in lines
    assert ["pairs", f"{int(facts['pairs']):,}"] in lines
    assert ["sha256", sha256_of(EMBEDDED)[:16]] in lines


def test_every_fetched_package_is_named():
    packages = program("examples/fetch_textures.py").PACKAGES
    assert [name for name in packages if name.replace("-", r"\-") not in PAGE] == []


def test_figures_are_replaced_and_the_rest_stays():
    card = program("tests/benchmarks/mini_card.py")
    page = f"before\n{card.BEGIN}\nold\n{card.END}\nafter\n"
    assert card.replaced(page, ["new"]) == f"before\n{card.BEGIN}\nnew\n{card.END}\nafter\n"
    with pytest.raises(SystemExit, match="no lines"):
        card.replaced("no marks", ["new"])
