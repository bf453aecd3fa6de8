"""`romacli transfer` and `romacli track`: points of one photograph found in others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from romacli.cli.console import Console, stopping
from romacli.cli.options import TalkOptions, takes
from romacli.errors import ImageError, PartialError
from romacli.matchers.options import DEFAULT, MatcherOptions, Model
from romacli.options import Option
from romacli.words import counted

Points = Annotated[
    Path, Option("Points to find: x and y in px per line; the centre of the first pixel is 0.5 0.5.", metavar="FILE")
]


@dataclass(frozen=True)
class TransferOptions:
    one: Annotated[Path, Option("The photograph with the points.", metavar="A", is_argument=True)]
    other: Annotated[Path, Option("The photograph to find them in.", metavar="B", is_argument=True)]
    points: Points
    output: Annotated[Path | None, Option("Table to write. Default: print it.", metavar="FILE.csv", short="o")] = None
    model: Model = DEFAULT
    matcher: MatcherOptions = MatcherOptions()


@dataclass(frozen=True)
class TrackOptions:
    source: Annotated[Path, Option("A video, or a folder of its frames.", metavar="VIDEO_OR_FOLDER", is_argument=True)]
    points: Points
    output: Annotated[Path, Option("Table to write.", metavar="FILE.csv", short="o")] = Path("tracks.csv")
    overlay: Annotated[
        Path | None, Option("Video (.mp4) or folder for frames with the points drawn.", metavar="FILE.mp4|DIR")
    ] = None
    model: Model = DEFAULT
    matcher: MatcherOptions = MatcherOptions()


@takes(TransferOptions, TalkOptions, example="romacli transfer cat.jpg lion.jpg --points eyes.csv --model matcha")
def transfer(options: TransferOptions, talk: TalkOptions) -> None:
    """Find points of one photograph in another, which may show a different object of the same kind.

    Matchers with dense descriptors compare these, matcha its semantic ones; dense matchers follow the warp.
    A point is visible if matching it back returns to where it started.
    """
    from romacli.disk import check_writable
    from romacli.follow import HEADER, read_points, rows_of, write_table
    from romacli.follow import transfer as find
    from romacli.matchers.registry import load_matcher

    with Console(talk) as console:
        points = read_points(options.points)
        if options.output is not None:
            check_writable(options.output)
        found = find(load_matcher(options.model, options.matcher), options.one, options.other, points)
        rows = rows_of(1, found)
        if options.output is not None:
            write_table(options.output, rows)
        values = {
            "points": [
                {"x": float(x), "y": float(y), "score": float(score), "visible": bool(visible)}
                for (x, y), score, visible in zip(found.xy, found.scores, found.visible, strict=True)
            ],
            "output": str(options.output) if options.output else None,
        }
        told = f"{int(found.visible.sum())} of {counted(len(points), 'point')} visible"
        if options.output is None and not talk.as_json:
            print("\n".join(",".join(row) for row in (HEADER, *rows)))
        console.result(values, f"{told}; see {options.output}" if options.output else told)


@takes(TrackOptions, TalkOptions, example="romacli track film.mp4 --points first.csv --overlay drawn.mp4")
def track(options: TrackOptions, talk: TalkOptions) -> None:
    """Follow points of the first frame through the others.

    Each frame is compared only with the first. Points are in pixels as stored: an EXIF orientation rotates photographs
    for matching, and for --overlay. A point is visible if matching it back returns to where it started.
    """
    from romacli.disk import check_writable
    from romacli.follow import Finder, Overlay, frames, read_points, rows_of, write_table
    from romacli.images.listing import list_images
    from romacli.matchers.registry import load_matcher
    from romacli.run.photographs import tell_left_out

    with stopping() as stop, Console(talk) as console:
        points = read_points(options.points)
        check_writable(options.output)
        overlay = Overlay(options.overlay) if options.overlay else None
        if options.source.is_dir():
            tell_left_out(list_images(options.source).left_out, console)
        matcher = load_matcher(options.model, options.matcher)
        finder, first, upright, visible = Finder(matcher, semantic=False), None, points, 0
        rows: list[tuple[str, ...]] = []
        failures: list[ImageError] = []
        try:
            for number, frame in enumerate(frames(options.source)):
                stop.check()
                if isinstance(frame, ImageError):
                    if first is None:
                        raise frame
                    failures.append(frame)
                    continue
                view = finder.view(frame.image)
                if first is None:
                    first, upright = view, frame.upright(points)
                found = finder.find(first, view, upright)
                rows += rows_of(number, frame.as_stored(found))
                visible += int(found.visible.sum())
                if overlay:
                    overlay.add(number, frame.image, found)
        finally:  # what was found before a signal or an error is kept
            if rows:
                write_table(options.output, rows)
            if overlay:
                overlay.close()
        count = len(rows) // len(points)
        values = {"frames": count, "points": len(points), "visible": visible, "output": str(options.output)}
        told = f"{counted(len(points), 'point')} in {counted(count, 'frame')}, visible {counted(visible, 'time')}"
        console.result(values, f"{told}; see {options.output}")
        if failures:
            lines = "\n".join(f"  {error}" for error in failures)
            raise PartialError(f"{counted(len(failures), 'frame')} could not be read:\n{lines}")
