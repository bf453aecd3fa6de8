"""Input is data: nothing in it is executed, names stay in their folders, downloads use TLS."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from romacli.cli.app import app
from romacli.errors import PairsError
from romacli.job.reaggregate import ReaggregateOptions, reaggregate
from romacli.pairs.listfile import write_pairs
from romacli.progress import Silent
from romacli.stop import StopRequest
from romacli.store.layout import Layout
from romacli.store.manifest import write_manifest
from romacli.types import Manifest, PairList

PACKAGE = Path(__file__).resolve().parents[1] / "romacli"
# Reads NumPy pickles through an unpickler that creates only arrays, numbers and strings.
RESTRICTED_PICKLE = "store/pickled.py"
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads"}
MUST_SAY = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def said(call: ast.Call, keyword: str) -> object:
    return next((ast.literal_eval(one.value) for one in call.keywords if one.arg == keyword), None)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nothing_that_is_read_is_run(path: Path) -> None:
    for name, call in calls(path):
        place = f"{path}:{call.lineno} calls {name}"
        assert name not in FORBIDDEN_CALLS, place
        if name in MUST_SAY:
            keyword, value = MUST_SAY[name]
            assert said(call, keyword) is value, f"{place} without {keyword}={value}"
        assert not any(one.arg == "shell" for one in call.keywords), place
    text = path.read_text(encoding="utf-8")
    assert "http://" not in text, f"{path} names an address without TLS"
    if path.relative_to(PACKAGE).as_posix() != RESTRICTED_PICKLE:
        assert "import pickle" not in text, f"{path} imports pickle"


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "a/../../outside.png"])
def test_lists_name_no_file_outside_the_photographs(tmp_path: Path, name: str) -> None:
    for place in (tmp_path / "photos" / "a" / "in.png", tmp_path / "outside.png"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"")
    (tmp_path / "names.txt").write_text(f"a/in.png\n{name}\n")
    (tmp_path / "pairs.txt").write_text(f"a/in.png {name}\n")
    for option, file in (("--image-list", "names.txt"), ("--pairs", "pairs.txt")):
        words = ("match", tmp_path / "photos", "-o", tmp_path / "job", option, tmp_path / file)
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code in (2, 3)
        assert "error: " in result.stderr
    assert not (tmp_path / "job").exists()


def test_a_job_from_elsewhere_names_no_file_outside_its_folder(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "job")
    layout.root.mkdir()
    write_manifest(layout.manifest, Manifest({"model": "x"}, "0"))
    write_pairs(layout.pairs, PairList((("../../outside.png", "b.png"),)))
    with pytest.raises(PairsError, match="cannot be a name in hloc files"):
        reaggregate(layout, ReaggregateOptions(), Silent(), StopRequest())
    assert [path.name for path in tmp_path.iterdir()] == ["job"]
