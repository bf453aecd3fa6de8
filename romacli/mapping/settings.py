"""Options of COLMAP's mappers by name, as KEY=VALUE; values are Python literals."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

from romacli.errors import UsageError

Setting = tuple[str, Any]

_NAMES_SHOWN = 3


def parse_setting(word: str) -> Setting:
    """Read a `--mapper-option` KEY=VALUE: a number, True or False, "text", a list of them. Nothing is evaluated.

    Raises:
        UsageError: the word has no value, or one that is not a literal.
    """
    key, equals, text = word.partition("=")
    if not equals or not key.strip() or not text.strip():
        raise UsageError(f"--mapper-option {word} has to be KEY=VALUE, such as init_min_tri_angle=4.")
    try:
        return key.strip(), ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise UsageError(
            f"--mapper-option {word}: {text} is no value. Write a number, True, False, or 'text' in quotes."
        ) from error


def apply_settings(options: Any, settings: Iterable[Setting]) -> None:
    """Set options of a pycolmap options object. `a.b` is b of the group a; b alone is found in any group.

    Raises:
        UsageError: there is no such option, several groups have it, or the value has another type.
    """
    known = dict(_options(options))
    for key, value in settings:
        *groups, name = _find(known, key).split(".")
        owner = options
        for group in groups:
            owner = getattr(owner, group)
        try:
            setattr(owner, name, _fitting(value, getattr(owner, name)))
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(
                f"--mapper-option {key}={value!r} does not fit. Give {_kind(getattr(owner, name))}."
            ) from error


def _options(options: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every option with its value, those of groups prefixed by the group's name and a dot."""
    for name, value in options.todict(recursive=False).items():
        if hasattr(value, "todict"):
            yield from _options(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _find(known: dict[str, Any], key: str) -> str:
    if key in known:
        return key
    found = [name for name in known if name.endswith(f".{key}")]
    fewest_dots = min((name.count(".") for name in found), default=0)
    found = [name for name in found if name.count(".") == fewest_dots]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"--mapper-option {key} is in several groups. Write one of {', '.join(found)}.")
    leaves = {name.rpartition(".")[2]: name for name in reversed(known)}
    near = get_close_matches(key, [*known, *leaves], _NAMES_SHOWN, cutoff=0.5)
    nearest = list(dict.fromkeys(leaves.get(name, name) for name in near))
    hint = f" Near it: {', '.join(nearest)}." if nearest else ""
    raise UsageError(f"--mapper-option {key} is no option of this mapper.{hint}")


def _fitting(value: Any, held: Any) -> Any:
    """The value converted for the option; raises TypeError or ValueError if its type differs."""
    if isinstance(held, bool):
        if value not in (0, 1):
            raise TypeError
        return bool(value)
    if isinstance(value, bool):
        raise TypeError
    if isinstance(held, (str, int, float)) and isinstance(value, str) != isinstance(held, str):
        raise TypeError
    if (members := _members(held)) is not None:
        if value not in members:
            raise ValueError
        return members[value]
    return value


def _members(held: Any) -> dict[str, Any] | None:
    """The members of an enumeration by name; None for other types."""
    return getattr(type(held), "__members__", None)


def _kind(held: Any) -> str:
    if (members := _members(held)) is not None:
        return f"one of {', '.join(repr(name) for name in members)}"
    kinds = {bool: "True or False", int: "a whole number", float: "a number", str: "'text'"}
    return kinds.get(type(held), f"a value like {held!r}")
