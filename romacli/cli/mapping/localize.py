"""`romacli localize`: poses of photographs in a finished model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from romacli.cli.console import Console, stopping
from romacli.cli.options import TalkOptions, takes
from romacli.errors import PartialError
from romacli.localize.options import LocalizeOptions
from romacli.matchers.options import DEFAULT, MatcherOptions
from romacli.options import Option, Panel
from romacli.run.options import MatchOptions
from romacli.words import counted


@dataclass(frozen=True)
class MapOptions:
    queries: Annotated[Path, Option("Folder of query photographs.", metavar="QUERIES", is_argument=True)]
    sparse: Annotated[
        Path,
        Option(
            "Map to localize in: the folder of a job, for its largest model, or of any COLMAP model with points, such "
            "as OUT/sparse/1 of a job.",
            metavar="SPARSE",
            name="model",
        ),
    ]
    images: Annotated[
        Path | None,
        Option("Folder of the model's photographs. Default: the folder the job's were matched in.", metavar="DIR"),
    ] = None
    output: Annotated[Path, Option("Output folder; resumed if it exists.", metavar="OUT", short="o")] = Path(
        "romacli-localized"
    )
    matcher: Annotated[
        str,
        Option("Matcher; see `romacli models list`.", metavar="NAME", environment="ROMACLI_MODEL", panel=Panel.matcher),
    ] = DEFAULT


@takes(
    MapOptions,
    LocalizeOptions,
    MatcherOptions,
    MatchOptions,
    TalkOptions,
    example="romacli localize queries/ --model job -o localized",
)
def localize(
    wanted: MapOptions, options: LocalizeOptions, building: MatcherOptions, matching: MatchOptions, talk: TalkOptions
) -> None:
    """Find the poses of query photographs in a model, by dense matches with its images.

    Writes OUT/poses.txt, lines `NAME qw qx qy qz tx ty tz` as benchmarks read them, and OUT/localized.json with
    inliers, covariance, the map images used, and why a query has no pose; OUT/points/ has each query's 2D-3D matches.
    Run the same command again to resume.
    """
    from romacli.localize.localize import Localizer, values_of
    from romacli.localize.map import open_map
    from romacli.matchers.registry import load_matcher
    from romacli.store.layout import about_other_models, layout_of

    with stopping() as stop, Console(talk) as console:
        if others := about_other_models(layout_of(wanted.sparse)):
            console.say(others)
        target = open_map(wanted.sparse, wanted.images, console)
        matcher = load_matcher(wanted.matcher, building)
        localizer = Localizer(target, wanted.output, matcher, options, matching, console, stop)
        found = localizer.localize(wanted.queries)
        failed = [query for query in found if query.why]
        posed = len(found) - len(failed)
        console.result(
            {"queries": len(found), "posed": posed, "results": [values_of(query) for query in found]},
            f"{posed} of {counted(len(found), 'query', 'queries')} posed; see {wanted.output / 'poses.txt'}",
        )
    if failed:
        reasons = "\n".join(f"  {query.name}: {query.why}" for query in failed)
        raise PartialError(f"{counted(len(failed), 'query', 'queries')} without a pose of their own:\n{reasons}")
