"""First contact with the program: help without heavy imports, the version, completions."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from romacli import __version__
from romacli.cli.app import panels_of

HEAVY = {"torch", "cv2", "h5py", "pycolmap", "scipy", "sqlite3", "statistics"}
HELP_AND_LIST_HEAVY = f"""
import sys
from romacli.cli.app import app
try:
    app(sys.argv[1:], prog_name="romacli")
except SystemExit as end:
    code = end.code
heavy = sorted({HEAVY} & sys.modules.keys())
sys.exit(code or ", ".join(heavy) or 0)
"""


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env={**os.environ, **environment})


@pytest.mark.parametrize(
    "words",
    [["--help"], ["match", "--help"], ["reconstruct", "-h"], ["pairs", "sequential", "--help"], ["--version"]],
    ids=" ".join,
)
def test_help_comes_without_heavy_libraries(words: list[str]) -> None:
    run = python("-c", HELP_AND_LIST_HEAVY, *words)
    assert (run.returncode, run.stderr) == (0, "")
    assert "romacli" in run.stdout


def test_options_without_a_panel_are_listed_as_such_options() -> None:
    """As are those of Click, which older versions of Typer use for --help."""

    class Plain:
        param_type_name = "option"

        def get_help_record(self, ctx: None) -> tuple[str, str]:
            return ("--help", "Show this message.")

    class Command:
        def get_params(self, ctx: None) -> list[Plain]:
            return [Plain()]

    assert panels_of(Command(), None) == [("Options", [("--help", "Show this message.")])]


def test_the_version_is_the_packages() -> None:
    assert python("-m", "romacli", "--version").stdout == f"romacli {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_completion_script(shell: str) -> None:
    run = python("-m", "romacli", _ROMACLI_COMPLETE=f"source_{shell}")
    assert run.returncode == 0
    assert "_ROMACLI_COMPLETE=complete_" + shell in run.stdout


def test_bash_completes_commands_and_options() -> None:
    def completed(words: str) -> list[str]:
        run = python(
            "-m", "romacli", _ROMACLI_COMPLETE="complete_bash", COMP_WORDS=words,
            COMP_CWORD=str(len(words.split()) - 1),
        )  # fmt: skip
        return run.stdout.split()

    assert completed("romacli rec") == ["reconstruct"]
    assert sorted(completed("romacli re")) == ["reconstruct", "refine", "register", "report"]
    assert completed("romacli match --max-k") == ["--max-keypoints"]
