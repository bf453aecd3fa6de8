"""The command tree, and the one place where errors become exit codes."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperGroup

from romacli import __version__
from romacli.cli import (
    aggregate,
    bench,
    check,
    colmap_import,
    match,
    merge,
    models,
    pairs,
    reconstruct,
    report,
    show,
    train,
)
from romacli.cli import eval as evaluation
from romacli.cli.console import exit_code
from romacli.cli.options import normalise
from romacli.errors import RomacliError

EPILOG = (
    "Exit codes: 0 done; 2 wrong options; 3 nothing could start; 4 finished, but what is listed failed; "
    "5 nothing matched or no model; 6 an output file is damaged, foreign or cannot be written; "
    "75 try again later; 130 or 143 stopped by a signal, the same command continues."
)


ORDER_OF_WORK = (
    "pairs",
    "match",
    "merge",
    "aggregate",
    "colmap-import",
    "reconstruct",
    "check",
    "show",
    "report",
    "models",
    "bench",
    "eval",
    "train",
)


class _Front(TyperGroup):
    """Commands in the order of the work, whose expected errors are sentences on stderr."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        _hide_types(self)

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER_OF_WORK.index)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (RomacliError, KeyboardInterrupt) as error:
            raise typer.Exit(exit_code(error)) from error


def _hide_types(command: Any) -> None:
    """Show arguments by their names alone, without types of Python's."""
    for parameter in command.params:
        if isinstance(parameter, TyperArgument):
            parameter.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
    for part in getattr(command, "commands", {}).values():
        _hide_types(part)


app = typer.Typer(
    cls=_Front,
    epilog=EPILOG,
    help="Match photographs densely with RoMa and turn the matches into a COLMAP model.",
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


app.add_typer(pairs.app, name="pairs")
match.add_to(app)
merge.add_to(app)
aggregate.add_to(app)
colmap_import.add_to(app)
reconstruct.add_to(app)
check.add_to(app)
show.add_to(app)
report.add_to(app)
app.add_typer(models.app, name="models")
bench.add_to(app)
app.add_typer(evaluation.app, name="eval")
train.add_to(app)


def main() -> None:
    app(prog_name="romacli")
