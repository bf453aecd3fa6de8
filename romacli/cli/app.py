"""The command tree, and the one place where errors become exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperGroup

from romacli import __version__
from romacli.cli.console import Console, Unheard, exit_code, expected, flush_output, open_streams, tell
from romacli.cli.mapping import colmap_import, densify, export, filter, localize, reconstruct, register
from romacli.cli.matching import aggregate, check, match, merge, pairs, refine, status
from romacli.cli.measuring import bench, benchmarks, models, train
from romacli.cli.measuring import eval as evaluation
from romacli.cli.options import PANELS, normalise
from romacli.cli.viewing import describe, follow, report, show
from romacli.run.options import Try

EPILOG = (
    "Exit codes: 0 done; 1 a fault of romacli or of a library, or nobody reads the output; 2 wrong options; 3 could "
    "not start; 4 finished, with the failures listed; 5 nothing matched or no model; 6 an output file is damaged, not "
    "romacli's or not writable; 75 try again later; 129, 130 or 143 stopped by a signal, run the same command again "
    "to resume."
)

# In the order of work.
COMMANDS: dict[str, Any] = {
    "pairs": pairs.app,
    "match": match.match,
    "merge": merge.merge,
    "aggregate": aggregate.aggregate,
    "refine": refine.refine,
    "colmap-import": colmap_import.colmap_import,
    "filter": filter.filter_job,
    "reconstruct": reconstruct.reconstruct,
    "densify": densify.densify,
    "localize": localize.localize,
    "register": register.register,
    "export": export.export,
    "status": status.status,
    "check": check.check,
    "show": show.show,
    "describe": describe.describe,
    "transfer": follow.transfer,
    "track": follow.track,
    "report": report.report,
    "models": models.app,
    "bench": bench.bench,
    "eval": evaluation.app,
    "train": train.train,
}


class _Front(TyperGroup):
    """Lists commands in workflow order and prints expected errors as sentences on stderr."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        _dress(self)

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=[*COMMANDS].index)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        _list_commands(self, ctx, formatter)

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run a command; every expected error ends in one sentence and an exit code."""
        self._words = words = _with_values(sys.argv[1:] if args is None else args)
        is_alone = extra.pop("standalone_mode", True)
        Console.has_told = False
        try:
            code = super().main(words, standalone_mode=False, **extra)
            flush_output()
        except (Exception, KeyboardInterrupt) as error:
            told = expected(error)
            if told is None:
                raise
            with suppress(OSError):
                flush_output()
            code = _end(told, words)
        if is_alone:
            sys.exit(code)
        return code

    def invoke(self, ctx: Any) -> Any:
        try:
            super().invoke(ctx)
        except KeyboardInterrupt as error:  # Typer would take every signal for Ctrl-C
            raise typer.Exit(_end(error, self._words)) from error


BARE = ("--try-rotations", "--try-scales", "--rescue")


def _with_values(words: Sequence[str]) -> list[str]:
    """Give each option of `BARE` without a value, from before it took one, the value it stands for."""
    following = [*words[1:], ""][: len(words)]
    return [
        f"{word}=always" if normalise(word) in BARE and after not in set(Try) else word
        for word, after in zip(words, following, strict=True)
    ]


def _end(error: BaseException, words: Sequence[str]) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
        error.show()  # type: ignore[attr-defined]
        return exit_code(error)
    tell(error, as_json="--json" in words)
    if getattr(error, "ctx", None) is not None:
        print(f"See `{error.ctx.command_path} --help`.", file=sys.stderr)  # type: ignore[attr-defined]
    return exit_code(error)


def _dress(command: Any) -> None:
    """Show arguments by name only, options in panels, and commands with their full summary."""
    for parameter in command.params:
        if isinstance(parameter, TyperArgument):
            parameter.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
    parts = getattr(command, "commands", {})
    if parts:
        command.format_commands = partial(_list_commands, command)
    else:
        command.format_options = partial(_list_options, command)
    for part in parts.values():
        _dress(part)


def _list_commands(group: Any, ctx: Any, formatter: Any) -> None:
    rows = []
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if not command.hidden:
            rows.append((name, " ".join((command.help or "").split("\n\n")[0].split())))
    with formatter.section("Commands"):
        formatter.write_dl(rows)


def _list_options(command: Any, ctx: Any, formatter: Any) -> None:
    for panel, rows in panels_of(command, ctx):
        with formatter.section(panel):
            formatter.write_dl(rows)


def panels_of(command: Any, ctx: Any) -> list[tuple[str, list[tuple[str, str]]]]:
    """Arguments, then options by panel, in the order of `Panel`: titles with (term, help) rows."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            is_argument = parameter.param_type_name == "argument"
            # In older versions of Typer, --help is an option of Click's, which has no panel.
            panel = "Arguments" if is_argument else getattr(parameter, "rich_help_panel", None) or "Options"
            panels.setdefault(panel, []).append(record)
    if panels.keys() - {"Options", "Arguments"} and len(panels.get("Options", ())) == 1:  # --help
        panels.setdefault(PANELS[-1], []).extend(panels.pop("Options"))
    return sorted(panels.items(), key=lambda row: PANELS.index(row[0]))


app = typer.Typer(
    cls=_Front,
    epilog=EPILOG,
    help="Match photographs densely with RoMa and build a COLMAP model from the matches.",
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": normalise},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"romacli {__version__}")
        raise typer.Exit


@app.callback()
def _front(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


benchmarks.add_to(evaluation.app)
for _name, _command in COMMANDS.items():
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_name)
    else:
        app.command(_name, epilog=f"Example: {_command.example}")(_command)


def main() -> None:
    open_streams()
    sys.stderr = Unheard(sys.stderr)
    app(prog_name="romacli")
