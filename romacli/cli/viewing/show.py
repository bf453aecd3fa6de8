"""`romacli show`: draw one pair, or a localized query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from romacli.cli.console import Console
from romacli.cli.options import TalkOptions, takes
from romacli.errors import UsageError
from romacli.job.options import JobImages
from romacli.matchers.options import DEFAULT, Device, MatcherOptions, Model, Weights
from romacli.options import Option
from romacli.words import counted

if TYPE_CHECKING:
    from romacli.show.view import PairView

DEFAULT_PICTURE = Path("pair.png")


@dataclass(frozen=True)
class ShowOptions:
    one: Annotated[
        str, Option("A photograph: a file, or its name in the job if OUT is given.", metavar="A", is_argument=True)
    ]
    other: Annotated[
        str,
        Option(
            "The other photograph; or the output folder of `romacli localize`, if A is a query.",
            metavar="B",
            is_argument=True,
        ),
    ]
    job: Annotated[
        Path | None,
        Option(
            "Folder of a job that matched them. Without it they are matched now.",
            metavar="OUT",
            is_argument=True,
            has_default=False,
        ),
    ] = None
    images: JobImages = None
    output: Annotated[
        Path,
        Option("Picture to write (.png, .jpg, .pdf or .svg), or a folder for pair.png.", metavar="FILE", short="o"),
    ] = DEFAULT_PICTURE
    warp: Annotated[bool, Option("Draw only the warped photographs and the certainty maps.")] = False
    matches: Annotated[bool, Option("Draw only the matches.")] = False
    inliers: Annotated[bool, Option("Draw only inliers of an epipolar geometry (MAGSAC, 4 px).")] = False
    max_lines: Annotated[int, Option("Maximum matches drawn as lines, chosen at random.", min=1)] = 150
    model: Model = DEFAULT
    weights: Weights = None
    device: Device = "auto"


@takes(ShowOptions, TalkOptions, example="romacli show photos/1.jpg photos/2.jpg -o pair.png")
def show(flags: ShowOptions, talk: TalkOptions) -> None:
    """Draw a pair: matches coloured by certainty, each photograph warped into the other, and certainty maps.

    Yellow is certain, violet uncertain; grey areas receive nothing.

    A query of `romacli localize` is drawn with its map points: inliers where they are reprojected, coloured by error,
    and outliers in red with a line to their reprojection.

    With a job folder the job's stored results are drawn; without one, the two photographs are matched now.
    """
    from romacli.show.picture import PARTS, draw, write_figure
    from romacli.show.view import inliers_of

    chosen = tuple(part for part, wanted in zip(PARTS, (flags.matches, flags.warp), strict=True) if wanted)
    if flags.job is None and Path(flags.other).is_dir():
        _show_query(flags, talk)
        return
    with Console(talk) as console:
        view = _stored(flags) if flags.job else _matched(flags)
        found = len(view.matches)
        if flags.inliers:
            view = inliers_of(view)
        picture = flags.output / DEFAULT_PICTURE if flags.output.is_dir() else flags.output
        write_figure(draw(view, parts=chosen or PARTS, num_lines=flags.max_lines), picture)
        values = {
            "picture": str(picture),
            "pair": list(view.names),
            "matches": found,
            "inliers": len(view.matches) if flags.inliers else None,
            "note": view.note,
        }
        console.result(values, f"{counted(found, 'match', 'matches')}, {view.note}; see {picture}")


def _show_query(flags: ShowOptions, talk: TalkOptions) -> None:
    from romacli.show.picture import write_figure
    from romacli.show.query import draw_query, subtitle, view_of_query

    if flags.warp or flags.matches:
        raise UsageError(
            f"--warp and --matches apply to pairs, but {flags.one} is a query of {flags.other}. Omit them."
        )
    with Console(talk) as console:
        view = view_of_query(Path(flags.other), flags.one, flags.images)
        picture = flags.output / DEFAULT_PICTURE if flags.output.is_dir() else flags.output
        write_figure(draw_query(view, with_outliers=not flags.inliers), picture)
        values = {
            "picture": str(picture),
            "query": view.name,
            "points": len(view.points.ids),
            "inliers": len(view.errors),
            "note": view.note,
        }
        console.result(values, f"{subtitle(view)}; see {picture}")


def _stored(flags: ShowOptions) -> PairView:
    from romacli.show.view import view_in_job
    from romacli.store.layout import Layout

    assert flags.job is not None
    return view_in_job(Layout(flags.job), (flags.one, flags.other), flags.images)


def _matched(flags: ShowOptions) -> PairView:
    from romacli.matchers.registry import load_matcher
    from romacli.show.view import view_of_match
    from romacli.two_view import match_two

    matcher = load_matcher(flags.model, MatcherOptions(weights=flags.weights, device=flags.device))
    names = (Path(flags.one).name, Path(flags.other).name)
    return view_of_match(names, match_two(Path(flags.one), Path(flags.other), matcher))
