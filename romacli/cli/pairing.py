"""The options of the sources of pairs, the same in `romacli pairs` and behind `--pairing`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from romacli.cli.options import PAIRS
from romacli.errors import UsageError

if TYPE_CHECKING:
    from romacli.pairing.sources import PairingOptions


class Pairing(StrEnum):
    exhaustive = "exhaustive"
    sequential = "sequential"
    retrieval = "retrieval"
    spatial = "spatial"
    poses = "poses"
    covisible = "covisible"
    from_database = "from-database"


@dataclass(frozen=True)
class NumMatchedFlags:
    panel: ClassVar[str] = PAIRS

    num_matched: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images each is paired with, the best first, by looks, poses or shared points. More find more and "
            "take more time. Default: 20.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class LikenessFlags:
    panel: ClassVar[str] = PAIRS

    min_score: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Cosine of two descriptors below which images do not look alike."),
    ] = None
    mutual: Annotated[
        bool, typer.Option("--mutual", help="Keep a pair only where each image is among the best of the other.")
    ] = False
    whiten: Annotated[
        bool,
        typer.Option(
            "--whiten", help="Give all directions of the descriptors the same weight; for hundreds of images."
        ),
    ] = False


@dataclass(frozen=True)
class ListFlags:
    panel: ClassVar[str] = PAIRS

    query_list: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Search partners for these names only, one a line.")
    ] = None
    database_list: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Search partners among these names only, one a line.")
    ] = None


@dataclass(frozen=True)
class SequentialFlags:
    panel: ClassVar[str] = PAIRS

    overlap: Annotated[
        int, typer.Option(min=1, help="Pair each image with this many that follow it. More pairs take more time.")
    ] = 5
    quadratic: Annotated[bool, typer.Option(help="Pair also at distances 1, 2, 4, 8, ...")] = False
    loop_closure: Annotated[
        bool, typer.Option("--loop-closure", help="Pair also images far apart in order that look alike.")
    ] = False
    loop_period: Annotated[
        int, typer.Option(min=1, help="Look for loops from one in so many images. Smaller finds more and takes longer.")
    ] = 10


@dataclass(frozen=True)
class SpatialFlags:
    panel: ClassVar[str] = PAIRS

    positions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Positions, a name and latitude, longitude and maybe height on each line; before those in EXIF data.",
        ),
    ] = None
    cartesian: Annotated[
        bool, typer.Option("--cartesian", help="The file's numbers are x, y, z in m instead of degrees.")
    ] = False
    altitude: Annotated[bool, typer.Option("--altitude", help="Count the height too, which GPS measures worse.")] = (
        False
    )
    max_distance_m: Annotated[
        float, typer.Option(min=0, help="Farthest distance in m between the places of a pair.")
    ] = 100.0
    max_num_neighbors: Annotated[
        int, typer.Option(min=1, help="Nearest images each is paired with. More take more time.")
    ] = 50


@dataclass(frozen=True)
class ReferenceModelFlags:
    panel: ClassVar[str] = PAIRS

    reference_model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="COLMAP model of the photographs, binary or text.")
    ] = None


@dataclass(frozen=True)
class PosesFlags:
    panel: ClassVar[str] = PAIRS

    max_rotation: Annotated[
        float, typer.Option(min=0, max=180, help="Largest rotation in degrees between the cameras of a pair.")
    ] = 60.0
    min_frustum_overlap: Annotated[
        float, typer.Option(min=0, max=1, help="Share of what two cameras see, in space, below which they are no pair.")
    ] = 0.1


@dataclass(frozen=True)
class CovisibleFlags:
    panel: ClassVar[str] = PAIRS

    min_shared_points: Annotated[
        int, typer.Option(min=1, help="Points of the model that both images of a pair must see.")
    ] = 15


@dataclass(frozen=True)
class DatabaseFlags:
    panel: ClassVar[str] = PAIRS

    reference_database: Annotated[
        Path | None, typer.Option(metavar="FILE", help="COLMAP database whose verified pairs to take; it is only read.")
    ] = None


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
class SourceFlags:
    panel: ClassVar[str] = PAIRS

    pairing: Annotated[
        Pairing | None,
        typer.Option(
            help="Choose pairs as `romacli pairs` does, in place of a file. Default: exhaustive.", show_default=False
        ),
    ] = None


@dataclass(frozen=True)
class PairingFlags(
    DatabaseFlags,
    CovisibleFlags,
    PosesFlags,
    ReferenceModelFlags,
    SpatialFlags,
    LikenessFlags,
    NumMatchedFlags,
    SequentialFlags,
    SourceFlags,
):
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


# Which sources read an option; one that the chosen source would ignore is refused.
_LOOPS = "sequential --loop-closure"
_READ_BY = {
    "num_matched": ("retrieval", _LOOPS, "poses", "covisible"),
    **dict.fromkeys((field.name for field in fields(LikenessFlags)), ("retrieval", _LOOPS)),
    **dict.fromkeys((field.name for field in fields(ListFlags)), ("retrieval",)),
    **dict.fromkeys((field.name for field in fields(SequentialFlags)), ("sequential",)),
    "loop_period": (_LOOPS,),
    **dict.fromkeys((field.name for field in fields(SpatialFlags)), ("spatial",)),
    "reference_model": ("poses", "covisible"),
    **dict.fromkeys((field.name for field in fields(PosesFlags)), ("poses",)),
    "min_shared_points": ("covisible",),
    "reference_database": ("from-database",),
    "descriptors": ("retrieval", _LOOPS),
}


def pairing_options(name: str, *groups: Any) -> PairingOptions:
    """The source of that name with the options of the groups.

    Raises:
        UsageError: an option was given that the source does not read.
    """
    from romacli.pairing.sources import PairingOptions
    from romacli.pairs import RetrievalOptions

    given = {
        field.name: (getattr(group, field.name), field.default)
        for group in groups
        for field in fields(group)
        if field.name in _READ_BY
    }
    readers = {name, _LOOPS} if name == "sequential" and given["loop_closure"][0] else {name}
    for option, (value, default) in given.items():
        if value != default and readers.isdisjoint(_READ_BY[option]):
            raise UsageError(
                f"--{option.replace('_', '-')} belongs to {' or '.join(_READ_BY[option])} pairing, not to {name}. "
                "Leave it out, or choose that pairing."
            )
    values = {option: value for option, (value, _) in given.items() if option != "descriptors"}
    if "max_rotation" in values:
        values["max_rotation_deg"] = values.pop("max_rotation")
    of_retrieval = {field.name: values.pop(field.name) for field in fields(RetrievalOptions) if field.name in values}
    return PairingOptions(name=name, retrieval=RetrievalOptions(**of_retrieval), **values)
