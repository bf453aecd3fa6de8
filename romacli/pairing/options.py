"""The options of all pair sources as a job takes them: the source's name and its options."""

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
    """Where `romacli pairs` stores the descriptors of photographs."""

    panel: ClassVar[Panel] = Panel.pairs

    descriptors: Annotated[
        Path | None,
        Option(
            "hloc file of global descriptors. Descriptors of the same matcher are reused and missing ones added; "
            "those of other tools are used as they are. Without it none are stored.",
            metavar="FILE",
        ),
    ] = None


@dataclass(frozen=True)
class _OfJobs:
    panel: ClassVar[Panel] = Panel.pairs

    pairing: Annotated[
        Pairing | None, Option("Choose pairs as `romacli pairs` does, instead of reading a file. Default: exhaustive.")
    ] = None
    preselect: Annotated[
        bool,
        Option(
            "First run only the coarse stage on all pairs, at a fraction of the cost, then match those that overlap "
            "by at least --min-coarse-overlap."
        ),
    ] = False
    descriptors: Annotated[
        Path | None,
        Option(
            "hloc file of global descriptors for retrieval. Descriptors of the same matcher are reused and missing "
            "ones added; those of other tools are used as they are. Default: OUT/global-features.h5.",
            metavar="FILE",
        ),
    ] = None


def _of_all_sources() -> Iterator[tuple[str, Any, Any]]:
    """Each option of all sources once, for a dataclass with all of them."""
    seen = set()
    for source in SOURCES.values():
        defaults = {part.name: part.default for part in fields(source.options)}
        for name, kind, option in declared(source.options):
            if name not in seen:
                seen.add(name)
                yield name, Annotated[kind, option], field(default=defaults[name])


PairingOptions: Any = make_dataclass(
    "PairingOptions", _of_all_sources(), bases=(_OfJobs,), namespace={"panel": Panel.pairs}, frozen=True
)


def source_options(chosen: Any) -> Any:
    """The options of the source that `PairingOptions` names.

    Raises:
        UsageError: an option was given that the source does not use.
    """
    source = source_named(chosen.pairing or DEFAULT)
    own = {name for name, _, _ in declared(source.options)}
    options = source.options(**{name: getattr(chosen, name) for name in own})
    _require_read(source, options, chosen)
    return options


def require_read(source: Source, options: Any, descriptors: Path | None) -> None:
    """Check that every option given has an effect.

    Raises:
        UsageError: an option was given that has an effect only with another.
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
                f"{option.flag(name)} is an option of {' or '.join(_readers(name))} pairing, not of {source.name}. "
                "Leave it out, or choose that pairing."
            )


def _readers(field: str) -> Iterator[str]:
    """The sources that use an option, with the switch that enables it, if any."""
    for source in SOURCES.values():
        names = {name for name, _, _ in declared(source.options)}
        switch = f"{source.name} --{(source.switch or '').replace('_', '-')}"
        if field in source.switched or (field == _DESCRIPTORS and source.switch is not None):
            yield switch
        elif field in names or (field == _DESCRIPTORS and source.looks):
            yield source.name
