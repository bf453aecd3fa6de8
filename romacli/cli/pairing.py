"""The options of all sources of pairs, the same in `romacli pairs` and behind `--pairing`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, make_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from romacli.cli.options import PAIRS
from romacli.errors import UsageError
from romacli.options import declared
from romacli.pairing.source import Source
from romacli.pairing.sources import SOURCES, source_named

Pairing = StrEnum("Pairing", {name.replace("-", "_"): name for name in SOURCES})  # type: ignore[misc]
DEFAULT = "exhaustive"


@dataclass(frozen=True)
class DescriptorFlags:
    panel: ClassVar[str] = PAIRS

    descriptors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="hloc file of global descriptors: those of another tool are taken as they are, those of the same "
            "matcher are used again, and missing ones are added. Without it none are kept.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class _SourceFlags:
    panel: ClassVar[str] = PAIRS

    pairing: Annotated[
        Pairing | None,
        typer.Option(
            help="Choose pairs as `romacli pairs` does, in place of a file. Default: exhaustive.", show_default=False
        ),
    ] = None


@dataclass(frozen=True)
class _JobFlags:
    panel: ClassVar[str] = PAIRS

    preselect: Annotated[
        bool,
        typer.Option(
            "--preselect",
            help="Run the coarse stage alone over all pairs first, at a fraction of the cost, and match those that "
            "overlap by --min-coarse-overlap.",
        ),
    ] = False
    descriptors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="hloc file of global descriptors for retrieval: another tool's is taken as it is, the same matcher's "
            "is used again and added to. Default: OUT/global-features.h5.",
            show_default=False,
        ),
    ] = None


def _of_all_sources() -> Iterator[tuple[str, Any, Any]]:
    """Every option of every source once, for a dataclass of all of them."""
    seen = set()
    for source in SOURCES.values():
        defaults = {part.name: part.default for part in fields(source.options)}
        for name, kind, option in declared(source.options):
            if name not in seen:
                seen.add(name)
                yield name, Annotated[kind, option], field(default=defaults[name])


# What `match` and `reconstruct` take: a source by name, and the options of all.
PairingFlags: Any = make_dataclass(
    "PairingFlags", _of_all_sources(), bases=(_JobFlags, _SourceFlags), namespace={"panel": PAIRS}, frozen=True
)


def pairing_options(flags: Any) -> Any:
    """The options of the source that is named, of those given to a job.

    Raises:
        UsageError: an option was given that the source does not read.
    """
    source = source_named(flags.pairing.value if flags.pairing else DEFAULT)
    own = {name for name, _, _ in declared(source.options)}
    options = source.options(**{name: getattr(flags, name) for name in own})
    _require_read(source, options, flags)
    return options


def require_read(source: Source, options: Any, descriptors: Path | None) -> None:
    """Pass silently when everything that was given has a meaning.

    Raises:
        UsageError: an option was given that counts only beside another.
    """
    values = {name: getattr(options, name) for name, _, _ in declared(source.options)}
    _require_read(source, options, PairingFlags(**values, descriptors=descriptors))


def _require_read(source: Source, options: Any, flags: Any) -> None:
    read = {name for name, _, _ in declared(source.options)}
    if not source.is_switched_on(options):
        read -= source.switched
    if source.looks_at_photographs(options):
        read.add("descriptors")
    defaults = {part.name: part.default for part in fields(PairingFlags)}
    for name, flag in [*((name, option.flag(name)) for name, _, option in declared(PairingFlags)), _DESCRIPTORS]:
        if name not in read and getattr(flags, name) != defaults[name]:
            raise UsageError(
                f"{flag} belongs to {' or '.join(_readers(name))} pairing, not to {source.name}. Leave it out, or "
                "choose that pairing."
            )


_DESCRIPTORS = ("descriptors", "--descriptors")


def _readers(field: str) -> Iterator[str]:
    """The sources that read an option, each with the switch that it takes for that."""
    for source in SOURCES.values():
        names = {name for name, _, _ in declared(source.options)}
        switch = f"{source.name} --{(source.switch or '').replace('_', '-')}"
        if field in source.switched or (field == _DESCRIPTORS[0] and source.switch is not None):
            yield switch
        elif field in names or (field == _DESCRIPTORS[0] and source.looks):
            yield source.name
