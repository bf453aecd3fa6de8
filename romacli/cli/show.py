"""`romacli show`: a picture of one pair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from romacli.cli.console import Console
from romacli.cli.options import TalkFlags, model_names, takes
from romacli.words import counted

if TYPE_CHECKING:
    from romacli.report.view import PairView

DEFAULT_PICTURE = Path("pair.png")


@dataclass(frozen=True)
class ShowFlags:
    one: Annotated[str, typer.Argument(metavar="A", help="A photograph: a file, or with OUT its name in the job.")]
    other: Annotated[str, typer.Argument(metavar="B", help="The photograph to show it with.")]
    job: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            help="Folder of a job that has matched them. Without it they are matched now.",
            show_default=False,
        ),
    ] = None
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the job's photographs. Default: where they were matched.", show_default=False
        ),
    ] = None
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Picture to write, .png, .jpg, .pdf or .svg, or a folder for pair.png.",
        ),
    ] = DEFAULT_PICTURE
    warp: Annotated[
        bool, typer.Option("--warp", help="Draw each photograph moved into the other, and the certainty maps, alone.")
    ] = False
    matches: Annotated[bool, typer.Option("--matches", help="Draw the matches alone.")] = False
    inliers: Annotated[
        bool, typer.Option("--inliers", help="Keep only the matches that one rigid motion explains (MAGSAC, 4 px).")
    ] = False
    max_lines: Annotated[
        int, typer.Option(min=1, help="Matches drawn as lines, chosen by chance. More hide the photographs.")
    ] = 150
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            envvar="ROMACLI_MODEL",
            autocompletion=model_names,
            help="Matcher where no job is given; see `romacli models list`.",
        ),
    ] = "mini"
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Checkpoint to use in place of the located one.")
    ] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto"


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: romacli show photos/1.jpg photos/2.jpg -o pair.png")(show)


@takes(ShowFlags, TalkFlags)
def show(flags: ShowFlags, talk: TalkFlags) -> None:
    """Draw a pair: its matches coloured by certainty, each photograph moved into the other, and certainty maps.

    Yellow is certain, violet is not; grey is where nothing leads.

    With the folder of a job, what the job has stored is drawn; without, the two photographs are matched now.
    """
    from romacli.report.picture import PARTS, PictureOptions, save_picture
    from romacli.report.view import inliers_of

    chosen = tuple(part for part, wanted in zip(PARTS, (flags.matches, flags.warp), strict=True) if wanted)
    options = PictureOptions(parts=chosen or PARTS, num_lines=flags.max_lines)
    with Console(quiet=talk.quiet, verbose=talk.verbose) as console:
        view = _stored(flags) if flags.job else _matched(flags)
        found = len(view.matches)
        if flags.inliers:
            view = inliers_of(view)
        picture = flags.output / DEFAULT_PICTURE if flags.output.is_dir() else flags.output
        save_picture(view, picture, options)
        values = {
            "picture": str(picture),
            "pair": list(view.names),
            "matches": found,
            "inliers": len(view.matches) if flags.inliers else None,
            "note": view.note,
        }
        console.result(
            values, f"{counted(found, 'match', 'matches')}, {view.note}; see {picture}", as_json=talk.as_json
        )


def _stored(flags: ShowFlags) -> PairView:
    from romacli.report.view import view_in_job
    from romacli.store.layout import Layout

    assert flags.job is not None
    return view_in_job(Layout(flags.job), (flags.one, flags.other), flags.images)


def _matched(flags: ShowFlags) -> PairView:
    from romacli.matchers.matcher import MatcherOptions
    from romacli.matchers.registry import load_matcher
    from romacli.report.view import view_of_match
    from romacli.two_view import match_two

    matcher = load_matcher(flags.model, MatcherOptions(weights=flags.weights, device=flags.device))
    names = (Path(flags.one).name, Path(flags.other).name)
    return view_of_match(names, match_two(Path(flags.one), Path(flags.other), matcher))
