"""Command parameters generated from options declared elsewhere, and options of the commands themselves.

Underscores are read as hyphens, and hloc's and COLMAP's option names are accepted as aliases.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache, wraps
from keyword import iskeyword
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_type_hints

import typer
from typer.models import ParameterInfo

from romacli.options import Option, Panel, Typed

ALIASES = {
    "export-dir": "output",
    "output-path": "output",
    "image-list-path": "image-list",
    "database-path": "database",
    "match-list-path": "pairs",
    "min-match-score": "min-certainty",
    "image-path": "image-dir",
    "mask-path": "mask-dir",
    "camera-mask-path": "camera-mask",
    "max-num-features": "max-keypoints",
    "quadratic-overlap": "quadratic",
    "loop-detection": "loop-closure",
    "loop-detection-period": "loop-period",
}
PANELS = ("Arguments", "Options", *Panel)


@dataclass(frozen=True)
class TalkOptions:
    """What a command prints, and how."""

    panel: ClassVar[Panel] = Panel.output

    as_json: Annotated[bool, Option("Print the result as one JSON object on stdout.", name="json")] = False
    quiet: Annotated[bool, Option("Print only warnings and errors.", short="q")] = False
    verbose: Annotated[bool, Option("Print more, including COLMAP's own messages.", short="v")] = False


@dataclass(frozen=True)
class DryRunOptions:
    """Whether to stop before any work is done."""

    panel: ClassVar[Panel] = Panel.running

    dry_run: Annotated[bool, Option("Check everything and print what would be done, then stop.")] = False


def normalise(word: str) -> str:
    """The canonical spelling of an option or command name."""
    word = word.replace("_", "-")
    return ALIASES.get(word, word)


def model_names(incomplete: str) -> list[str]:
    """Matcher names with this prefix, for shell completion."""
    from romacli.matchers.registry import matchers

    return [name for name in matchers() if name.startswith(incomplete)]


def takes(*groups: type, example: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of dataclasses, including nested ones; it is called with an instance of each.

    A field `typed` of a dataclass receives the options given on the command line, a field of class Typed their words.
    Dataclasses that declare the same option get the same value. example: a command line, for the help.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters = {parameter.name: parameter for group in groups for parameter in _parameters(group)}

        @wraps(command)
        def run(context: typer.Context, **values: Any) -> None:
            typed = {name for name in values if getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"}
            words = {flag: found for group in groups for flag, found in _words(group, values, typed)}
            typing = Typed(context.info_name or "", words)
            command(*(_filled(group, values, typed, typing) for group in groups))

        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        run.__signature__ = inspect.Signature([*parameters.values(), context])  # type: ignore[attr-defined]
        run.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
        run.__annotations__["context"] = typer.Context
        run.example = example  # type: ignore[attr-defined]
        return run

    return decorate


# Default metavars by type, and the options that the shell completes.
_VALUES = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH"}
_COMPLETED = {"model": model_names, "name": model_names, "matcher": model_names}


@cache
def _declarations(group: type) -> Sequence[tuple[Field[Any], Any, Option | None]]:
    """The fields of a dataclass that are options or nested dataclasses, with type and option (None if nested)."""
    hints = get_type_hints(group, include_extras=True)
    found: list[tuple[Field[Any], Any, Option | None]] = []
    for part in fields(group):
        kind, *notes = get_args(hints[part.name]) or (hints[part.name],)
        option = next((note for note in notes if isinstance(note, Option)), None)
        if option is not None:
            found.append((part, kind, option))
        elif isinstance(hints[part.name], type) and is_dataclass(hints[part.name]):
            found.append((part, hints[part.name], None))
    return found


def _keyword(field: str, option: Option) -> str:
    """The parameter name of an option; options with the same name share one."""
    name = option.flag(field).removeprefix("--").replace("-", "_")
    return f"{name}_" if iskeyword(name) else name


def _typed(group: type, typed: set[str]) -> Iterator[str]:
    """The fields of a dataclass, including nested ones, whose options were typed."""
    for part, kind, option in _declarations(group):
        if option is None:
            yield from _typed(kind, typed)
        elif _keyword(part.name, option) in typed:
            yield part.name


def _words(group: type, values: Mapping[str, Any], typed: set[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """The flag of each option that was typed, and its words."""
    for part, kind, option in _declarations(group):
        if option is None:
            yield from _words(kind, values, typed)
        elif _keyword(part.name, option) in typed and not option.is_argument:
            flag, value = option.flag(part.name), values[_keyword(part.name, option)]
            if isinstance(value, bool):
                yield flag, [flag if value else f"--no-{flag.removeprefix('--')}"]
            else:
                each = value if isinstance(value, (list, tuple)) else [value]
                yield flag, [word for one in each for word in (flag, _anywhere(one, option))]


def _anywhere(value: Any, option: Option) -> str:
    """A value as typed, with the path of a file or folder made absolute."""
    names_path = any(word in (option.metavar or "") for word in ("FILE", "DIR"))
    is_path = isinstance(value, Path) or (names_path and Path(value).exists())
    return os.path.abspath(value) if is_path else str(value)


def _filled(group: type, values: Mapping[str, Any], typed: set[str], typing: Typed) -> Any:
    """An instance of a dataclass with its values, each parsed by its option."""
    filled = {}
    for part, kind, option in _declarations(group):
        if option is None:
            filled[part.name] = typing if kind is Typed else _filled(kind, values, typed, typing)
        else:
            filled[part.name] = _read(option, values[_keyword(part.name, option)])
    if "typed" in {part.name for part in fields(group)}:
        filled["typed"] = frozenset(_typed(group, typed))
    return group(**filled)


def _read(option: Option, value: Any) -> Any:
    if option.many and option.parse:
        return tuple(option.parse(word) for word in value)
    return value if value is None or option.parse is None else option.parse(value)


def _parameters(group: type) -> Iterator[inspect.Parameter]:
    """A parameter for each option of a dataclass."""
    for part, kind, option in _declarations(group):
        if option is None:
            yield from _parameters(kind)
            continue
        owner = next(owner for owner in group.__mro__ if part.name in vars(owner).get("__annotations__", ()))
        panel = option.panel or vars(owner).get("panel")
        default = [] if option.many else _default(part)
        if option.parse is not None:
            kind = list[str] if option.many else str | None if default is None else str
        yield inspect.Parameter(
            _keyword(part.name, option),
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, _typer(part.name, kind, option, panel)],
        )


def _typer(field: str, kind: Any, option: Option, panel: Panel | None) -> ParameterInfo:
    metavar = option.metavar or _VALUES.get(next(iter(get_args(kind)), kind))  # of X, also for X | None
    shared: dict[str, Any] = {
        "help": option.help,
        "metavar": metavar,
        "show_default": option.has_default,
        "hidden": option.hidden,
        "autocompletion": _COMPLETED.get(field),
    }
    if option.is_argument:
        argument: ParameterInfo = typer.Argument(**shared)
        return argument
    flag = option.flag(field)
    names = [f"{flag}/--no-{flag[2:]}" if option.negatable else flag, *([f"-{option.short}"] if option.short else [])]
    bounds = {"min": option.min, "max": option.max, "envvar": option.environment, "rich_help_panel": panel}
    info: ParameterInfo = typer.Option(*names, **shared, **bounds)  # type: ignore[misc, arg-type]
    return info


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default
