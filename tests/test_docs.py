"""Documentation agrees with the program: help, man pages and README name every command, and their examples parse."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer.main
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from romacli import __version__, errors
from romacli.cli.app import EPILOG, app
from romacli.cli.manual import EXAMPLE, pages
from romacli.eval.benchmarks.table import BENCHMARKS
from romacli.store.layout import Layout

REPOSITORY = Path(__file__).resolve().parents[1]
MAN = REPOSITORY / "man"
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
README_OPTIONS = {
    "--camera-mode", "--camera-params", "--coarse-resolution", "--dry-run", "--engine", "--json", "--keypoints",
    "--known-poses", "--mapper-option", "--mask-dir", "--max-keypoints", "--method", "--min-certainty", "--model",
    "--num-processes", "--overlap", "--pairs", "--shard", "--upsample-resolution", "--weights",
}  # fmt: skip


def commands(command: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group of the program, with the words that call it."""
    command = command or typer.main.get_command(app)
    for name, part in getattr(command, "commands", {}).items():
        yield (*words, name), part
        yield from commands(part, (*words, name))


COMMANDS = dict(commands())
LEAVES = {words: command for words, command in COMMANDS.items() if not hasattr(command, "commands")}
NAMES = [" ".join(words) for words in COMMANDS]


def visible_options(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]


def parse(line: str) -> None:
    """Read a command line as the program would, without running it."""
    _, *words = shlex.split(line, comments=True)
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    if words == ["--help"] or words == ["--version"]:
        return
    command.make_context(line, words)


def documented_lines() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("romacli ")]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=NAMES)
def test_commands_and_options_have_help(command: Any) -> None:
    assert command.help
    assert command.help.splitlines()[0].endswith(".")
    assert [option.name for option in visible_options(command) if not option.help] == []


@pytest.mark.parametrize("command", LEAVES.values(), ids=map(" ".join, LEAVES))
def test_the_example_in_the_help_parses(command: Any) -> None:
    assert command.epilog.startswith(EXAMPLE)
    parse(command.epilog.removeprefix(EXAMPLE))


@pytest.mark.parametrize("words", COMMANDS, ids=NAMES)
def test_man_names_every_command_and_option(words: tuple[str, ...]) -> None:
    page = (MAN / f"romacli-{words[0]}.1").read_text(encoding="utf-8").replace("\\-", "-")
    assert f"romacli {' '.join(words)}" in page
    names = [name for option in visible_options(COMMANDS[words]) for name in option.opts]
    assert [name for name in names if name.startswith("--") and not re.search(rf"{name}\b", page)] == []


@pytest.mark.parametrize("words", COMMANDS, ids=NAMES)
def test_readme_names_every_command(words: tuple[str, ...]) -> None:
    page = MAN / "romacli-eval-benchmarks.7"  # listed by the README
    text = page.read_text(encoding="utf-8").replace("\\-", "-") if words[-1] in BENCHMARKS else README
    assert re.search(rf"\bromacli {' '.join(words)}\b", text)


def test_readme_names_the_main_options() -> None:
    known = {name for command in LEAVES.values() for option in command.params for name in option.opts}
    assert known >= README_OPTIONS
    assert [name for name in sorted(README_OPTIONS) if name not in README] == []


def test_readme_names_only_options_that_exist() -> None:
    known = {
        name
        for command in [typer.main.get_command(app), *LEAVES.values()]
        for option in command.params
        for name in (*option.opts, *option.secondary_opts)
    }
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", README)) - known - {"--help"} == set()


def test_readme_is_short() -> None:
    assert len(README.split()) <= 1500


def test_readme_lines_parse() -> None:
    lines = documented_lines()
    assert len(lines) > 5
    for line in lines:
        parse(line)


def test_readme_python_runs_and_has_the_shapes_it_says() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    run = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    one, other, warp, certainty, points = (re.findall(r"\d+", line) for line in run.stdout.splitlines())
    assert one == other == points == ["2000", "2"]
    assert warp == [*certainty, "2"]


def required(specs: Iterable[str]) -> Iterator[str]:
    """Names of the distributions installed here that requirements lead to, including their own."""
    todo, seen = list(map(Requirement, specs)), set()
    while todo:
        one = todo.pop()
        known = (canonicalize_name(one.name), frozenset(one.extras))
        with suppress(metadata.PackageNotFoundError):
            inner = map(Requirement, metadata.requires(one.name) or ())
            if known not in seen and known[0] != "romacli":
                yield known[0]
                extras = {"extra": ""}, *({"extra": extra} for extra in one.extras)
                todo += [r for r in inner if r.marker is None or any(map(r.marker.evaluate, extras))]
            seen.add(known)


def test_constraints_pin_all_that_is_tested() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    specs = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    pinned = {
        canonicalize_name(line.partition("==")[0])
        for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    assert len(pinned) > 20
    assert sorted(set(required(specs)) - pinned) == []


@pytest.mark.parametrize("words", COMMANDS, ids=NAMES)
def test_help_names_no_types_of_python(words: tuple[str, ...]) -> None:
    page = CliRunner().invoke(app, [*words, "--help"], terminal_width=300).stdout
    assert re.findall(r"<(?:str|int|float|path)\b[^>]*>|list\[.*?\]", page) == []


def test_formats_name_every_file_of_a_job() -> None:
    page = (MAN / "romacli-formats.7").read_text(encoding="utf-8").replace("\\-", "-")
    layout = Layout(Path("job"))
    files = [path for name in vars(Layout) if isinstance(path := getattr(layout, name), Path)]
    assert len(files) > 10
    assert [path for path in files if path.name not in page] == []


def test_the_parser_of_these_tests_refuses_unknown_options() -> None:
    with pytest.raises(Exception, match="[Nn]o such option"):
        parse("romacli match photos --no-such-option")


def test_man_pages_are_those_the_program_writes() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in MAN.glob("*.1")}
    assert written == pages(), "run `make man`"


@pytest.mark.parametrize("page", sorted(MAN.glob("*.7")), ids=lambda page: page.name)
def test_hand_written_pages_have_this_version(page: Path) -> None:
    assert f'"romacli {__version__}"' in page.read_text(encoding="utf-8")


def test_the_tests_that_the_page_on_reliability_names_are_there() -> None:
    page = (MAN / "romacli-reliability.7").read_text(encoding="utf-8").replace("\\-", "-")
    named = set(re.findall(r"tests/[\w/]+\.py", page))
    assert len(named) > 10
    assert [name for name in named if not (REPOSITORY / name).is_file()] == []


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("page", sorted(MAN.glob("*.[17]")), ids=lambda page: page.name)
def test_groff_has_nothing_to_say(page: Path) -> None:
    run = subprocess.run(["groff", "-man", "-ww", "-z", page], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_the_files_that_the_page_for_contributors_names_are_there() -> None:
    text = (REPOSITORY / "man" / "romacli-contributing.7").read_text(encoding="utf-8")
    named = re.findall(r"\b(?:[a-z_]+/)+(?:[a-z_]+\.py\b)?", text)
    assert len(named) > 20
    missing = {path for path in named if not any((REPOSITORY / top / path).exists() for top in ("romacli", "."))}
    assert not missing


def test_every_exit_code_is_explained() -> None:
    codes = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.RomacliError)
    }
    for code in codes - {errors.RomacliError.exit_code}:
        assert re.search(rf"\b{code} [a-z]", EPILOG)


def test_every_environment_variable_is_in_man_and_readme() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "romacli").rglob("*.py"))
    names = set(re.findall(r"\bROMACLI_[A-Z_]+\b", sources))
    assert names
    manual = (MAN / "romacli.1").read_text(encoding="utf-8")
    assert [name for name in names if name not in manual or name not in README] == []
