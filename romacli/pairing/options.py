"""The options of all sources of pairs, as a job takes them: a source by name, and what that source reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, make_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar

from romacli.errors import UsageError
from romacli.options import Option, Panel, declared
from romacli.pairing.source import Source
from romacli.pairing.sources import SOURCES, source_named

Pairing = StrEnum("Pairing", {name.replace("-", "_"): name for name in SOURCES})  # type: ignore[misc]
DEFAULT = "exhaustive"
_DESCRIPTORS = "descriptors"


@dataclass(frozen=True)
class DescriptorOptions:
    """Where `romacli pairs` keeps descriptors of photographs."""

    panel: ClassVar[Panel] = Panel.pairs

    descriptors: Annotated[
        Path | None,
        Option(
            "hloc file of global descriptors: those of another tool are taken as they are, those of the same "
            "matcher are used again, and missing ones are added. Without it none are kept.",
            metavar="FILE",
        ),
    ] = None


@dataclass(frozen=True)
class _Source:
    panel: ClassVar[Panel] = Panel.pairs

    pairing: Annotated[
        Pairing | None, Option("Choose pairs as `romacli pairs` does, in place of a file. Default: exhaustive.")
    ] = None


@dataclass(frozen=True)
class _OfJobs:
    panel: ClassVar[Panel] = Panel.pairs

    preselect: Annotated[
        bool,
        Option(
            "Run the coarse stage alone over all pairs first, at a fraction of the cost, and match those that "
            "overlap by --min-coarse-overlap."
        ),
    ] = False
    descriptors: Annotated[
        Path | None,
        Option(
            "hloc file of global descriptors for retrieval: another tool's is taken as it is, the same matcher's "
            "is used again and added to. Default: OUT/global-features.h5.",
            metavar="FILE",
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


PairingOptions: Any = make_dataclass(
    "PairingOptions", _of_all_sources(), bases=(_OfJobs, _Source), namespace={"panel": Panel.pairs}, frozen=True
)


def source_options(chosen: Any) -> Any:
    """The options of the source that `PairingOptions` name.

    Raises:
        UsageError: an option was given that the source does not read.
    """
    source = source_named(chosen.pairing or DEFAULT)
    own = {name for name, _, _ in declared(source.options)}
    options = source.options(**{name: getattr(chosen, name) for name in own})
    _require_read(source, options, chosen)
    return options


def require_read(source: Source, options: Any, descriptors: Path | None) -> None:
    """Pass silently when everything that was given has a meaning.

    Raises:
        UsageError: an option was given that counts only beside another.
    """
    values = {name: getattr(options, name) for name, _, _ in declared(source.options)}
    _require_read(source, options, PairingOptions(**values, descriptors=descriptors))


def _require_read(source: Source, options: Any, chosen: Any) -> None:
    read = {name for name, _, _ in declared(source.options)}
    if not source.is_switched_on(options):
        read -= source.switched
    if source.looks_at_photographs(options):
        read.add(_DESCRIPTORS)
    defaults = {part.name: part.default for part in fields(PairingOptions)}
    always = {"pairing", "preselect"}
    for name, _, option in declared(PairingOptions):
        if name not in read | always and getattr(chosen, name) != defaults[name]:
            raise UsageError(
                f"{option.flag(name)} belongs to {' or '.join(_readers(name))} pairing, not to {source.name}. Leave it "
                "out, or choose that pairing."
            )


def _readers(field: str) -> Iterator[str]:
    """The sources that read an option, each with the switch that it takes for that."""
    for source in SOURCES.values():
        names = {name for name, _, _ in declared(source.options)}
        switch = f"{source.name} --{(source.switch or '').replace('_', '-')}"
        if field in source.switched or (field == _DESCRIPTORS and source.switch is not None):
            yield switch
        elif field in names or (field == _DESCRIPTORS and source.looks):
            yield source.name
