"""The report as one self-contained HTML file, from a summary, figures and pictures.

Everything that comes from a job is escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from romacli.words import counted, counted_of, first_few

from .advice import Verdict
from .charts import library
from .summary import PairRow, Summary
from .thumbnails import PairPicture, Thumbnails

WORDS = {"good": "It worked.", "fair": "Worked in part.", "poor": "It did not work.", "open": "Not finished."}
_MOST_ROWS = 20_000
_MOST_QUERIES = 2_000
_PAIR_NUMBERS = ("overlap %", "matches", "inliers")
_IMAGE_NUMBERS = (
    *("pairs", "matched", "verified", "keypoints", "in tracks"),
    *("refined %", "shift px", "model", "points in model", "focal length px"),
)


def page(
    summary: Summary,
    judged: Verdict,
    warnings: Iterable[str],
    missing: Iterable[str],
    figures: Mapping[str, str],
    thumbnails: Thumbnails,
    *,
    twin: str,
) -> str:
    """The HTML of a report. figures: plotly JSON by name; twin: the name of its JSON file."""
    _, plotly = library()
    data = {
        "figures": "FIGURES",
        "names": [image.name for image in summary.images],
        "states": list(summary.state_words.values()),
        "thumbnails": thumbnails.by_name,
        "tables": {"pairs": _pair_table(summary), "images": _image_table(summary)},
    }
    drawn = ",".join(f"{json.dumps(name)}:{figure}" for name, figure in figures.items())
    text = json.dumps(data, separators=(",", ":")).replace('"FIGURES"', f"{{{drawn}}}")
    sections = _sections(summary, warnings, missing, figures, thumbnails)
    return Template(_asset("page.html")).substitute(
        title=escape(f"romacli report: {_name(summary)}"),
        style=_asset("style.css"),
        version=escape(summary.version),
        made=escape(summary.made.replace("T", " ").replace("+00:00", " UTC")),
        job=escape(_name(summary)),
        state=judged.state,
        word=WORDS[judged.state],
        sentence=escape(judged.sentence),
        tiles="".join(
            f"<div class='tile'><b>{escape(value)}</b><span>{escape(name)}</span></div>"
            for name, value in _tiles(summary)
        ),
        sections="\n".join(filter(None, sections)),
        twin=escape(twin),
        data=text.replace("<", "\\u003c"),
        plotly=plotly,
        script=_asset("script.js"),
    )


def _sections(
    summary: Summary,
    warnings: Iterable[str],
    missing: Iterable[str],
    figures: Mapping[str, str],
    thumbnails: Thumbnails,
) -> Iterator[str]:
    yield from (
        _advice("Warnings", "", warnings),
        _advice("What is missing", "missing", missing),
        _charts(
            "Stages and model",
            figures,
            ("stages", "Remaining after each stage", ""),
            ("above", "Cameras from above", ""),
        ),
        _charts("", figures, ("cloud", "The model: drag to rotate, scroll to zoom", "high")),
        _smaller(summary, figures),
        _charts(
            "Pairs",
            figures,
            ("graph", "Graph of image pairs", "high"),
            ("matrix", "Overlap of every matched or rejected pair", "high"),
        ),
        _gallery(thumbnails),
        _doubted(thumbnails),
        _localized(summary),
        _charts(
            "Images and tracks",
            figures,
            ("keypoints", "Keypoints per image", "low"),
            ("tracks", "Track lengths", "low"),
        ),
        _table("Table of pairs", "pairs", _rows_note(summary)),
        _table("Table of images", "images", ""),
        _settings(summary),
    )


def _asset(name: str) -> str:
    return (files("romacli.report") / "assets" / name).read_text(encoding="utf-8")


def _name(summary: Summary) -> str:
    return Path(summary.folder).resolve().name or summary.folder


def _tiles(summary: Summary) -> list[tuple[str, str]]:
    """The key figures."""
    counts = summary.stages
    pairs, images = counts["pairs"], counts["images"]
    stage, state = "registered" if summary.model else "matched", "verified" if summary.verified else "matched"
    tiles = [
        (f"images {stage}", f"{images[stage]} / {images['planned']}"),
        (f"pairs {state}", f"{pairs[state]:,} / {pairs['planned']:,}"),
        ("pairs rejected", f"{pairs['rejected']:,}"),
    ]
    if summary.model is not None:
        tiles.append(("points in the model", f"{summary.model.points3D:,}"))
        tiles.append(("images see a point", f"{summary.model.mean_track_length:.1f}"))
        tiles.append(("reprojection error", f"{summary.model.mean_reprojection_error:.2f} px"))
        if summary.model.gps is not None:
            tiles.append(("from GPS, median", f"{summary.model.gps.median_m:.2f} m"))
            tiles.append(("from GPS at most", f"{summary.model.gps.largest_m:.2f} m"))
    elif summary.tracks is not None:
        tiles.append(("connected tracks", f"{summary.tracks.count:,}"))
        tiles.append(("images in a track", f"{summary.tracks.mean_length:.1f}"))
    timings = summary.timings
    if timings:
        tiles.append(("time in all", _duration(sum(stage["seconds"] for stage in timings.values()))))
    if "encodes" in timings.get("matching", {}):
        tiles.append(("image encodes", f"{timings['matching']['encodes']:,.0f}"))
    return tiles


def _advice(title: str, kind: str, sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{_sentence(text)}</li>" for text in sentences)
    return f"<section><h2>{title}</h2><ul class='advice {kind}'>{items}</ul></section>" if items else ""


def _sentence(text: str) -> str:
    """A sentence as HTML, with backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text[:1].upper() + text[1:]))


def _charts(title: str, figures: Mapping[str, str], *wanted: tuple[str, str, str]) -> str:
    panels = "".join(
        f"<div class='panel'><h3>{heading}</h3><div class='chart {size}' data-figure='{name}'></div></div>"
        for name, heading, size in wanted
        if name in figures
    )
    heading = f"<h2>{title}</h2>" if title else "<h2 hidden></h2>"
    return f"<section>{heading}<div class='columns'>{panels}</div></section>" if panels else ""


def _smaller(summary: Summary, figures: Mapping[str, str]) -> str:
    """The smaller models: a row for each, and pictures of the first."""
    if not summary.smaller:
        return ""
    heads = ("model", "images", "points", "images see a point", "reprojection error")
    rows = [
        (
            *(f"sparse/{model.number}", str(model.registered), f"{model.points3D:,}"),
            *(f"{model.mean_track_length:.1f}", f"{model.mean_reprojection_error:.2f} px"),
        )
        for model in summary.smaller
    ]
    note = (
        "Photographs that no pairs connect with the largest model, sparse/0, or that were kept apart. Other commands "
        "use one of these models if its folder is given instead of the job's."
    )
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    drawn = [
        chart
        for model in summary.smaller
        for chart in (
            (f"above{model.number}", f"Cameras of sparse/{model.number} from above", ""),
            (f"cloud{model.number}", f"sparse/{model.number}: {counted(model.registered, 'image')}", ""),
        )
    ]
    return (
        f"<section id='smaller'><h2>Smaller models</h2><p class='note'>{note}</p><div class='scroll'><table><thead><tr>"
        f"{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead><tbody>{body}</tbody></table></div></section>"
        f"{_charts('', figures, *drawn)}"
    )


def _gallery(thumbnails: Thumbnails) -> str:
    if not thumbnails.pairs:
        return ""
    are_rejected = thumbnails.pairs[0].rank == "rejected"
    note = "Lines show at most 100 matches per pair; yellow is certain, violet uncertain."
    title = "Rejected pairs" if are_rejected else "The best, the median and the worst pairs"
    return _pictures(title, "" if are_rejected else note, thumbnails.pairs)


def _doubted(thumbnails: Thumbnails) -> str:
    """Why pairs are kept from the mapper."""
    note = (
        "Green: what a pair matches. Red: what both photographs match with others, where this pair leads from one to "
        "the other and matches nothing. Places that are the same have no red."
    )
    return _pictures("Pairs of places that only look alike", note, thumbnails.doubted) if thumbnails.doubted else ""


def _pictures(title: str, note: str, pictures: Iterable[PairPicture]) -> str:
    state = {"best": "good", "median": "open"}
    shown = "".join(
        f"<figure><figcaption><span class='badge {state.get(picture.rank, 'poor')}'>{picture.rank}</span> "
        f"{escape(picture.names[0])} &ndash; {escape(picture.names[1])} ({escape(picture.caption)})</figcaption>"
        f"<button type='button' title='enlarge'><img src='{picture.data}' "
        f"alt='matches of {escape(' and '.join(picture.names))}'></button></figure>"
        for picture in pictures
    )
    text = f"<p class='note'>{escape(note)}</p>" if note else ""
    return f"<section><h2>{title}</h2>{text}<div class='columns gallery'>{shown}</div></section>"


def _localized(summary: Summary) -> str:
    """The queries that were localized in the model, those without a pose of their own first."""
    if not summary.queries:
        return ""
    rows = sorted(summary.queries, key=lambda query: (query.posed, query.inliers, query.name))
    heads = ("query", "pose", "inliers", "points", "map images", "in")
    body = []
    for query in rows[:_MOST_QUERIES]:
        pose = "yes" if query.posed else f"that of {query.fallback}: {query.why}" if query.fallback else query.why
        used = first_few(query.map_images, 3)
        cells = (query.name, pose, f"{query.inliers:,}", f"{query.points:,}", used, query.folder)
        body.append(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    posed = sum(query.posed for query in rows)
    left = f" The {_MOST_QUERIES:,} with fewest inliers are shown." if len(rows) > _MOST_QUERIES else ""
    note = f"{counted_of(posed, len(rows), 'query', 'has a pose of its', 'have a pose of their', 'queries')} own.{left}"
    head = "".join(f"<th>{name}</th>" for name in heads)
    return (
        f"<section id='localization'><h2>Localization</h2><p class='note'>{note}</p><div class='scroll'><table>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div></section>"
    )


def _table(title: str, name: str, note: str) -> str:
    tools = (
        f"<div class='tools'><input type='search' placeholder='filter by name' "
        f"aria-label='filter the table of {name}'><select aria-label='state' hidden></select>"
        f"<span></span><button type='button'>more</button></div>"
    )
    text = f"<p class='note'>{escape(note)}</p>" if note else ""
    return (
        f"<section><h2>{title}</h2>{text}{tools}"
        f"<div class='scroll'><table data-table='{name}' id='{name}'></table></div></section>"
    )


def _rows_note(summary: Summary) -> str:
    if len(summary.pairs) <= _MOST_ROWS:
        return ""
    return f"The {_MOST_ROWS:,} weakest of {len(summary.pairs):,} pairs, rejected ones last; the JSON file has all."


def _pair_table(summary: Summary) -> dict[str, Any]:
    """Rows of the weakest pairs that have matches, then the others; images and states by number, as there may be
    thousands."""
    states = list(summary.state_words)

    def row(pair: PairRow) -> list[float | None]:
        overlap = None if pair.overlap is None else round(100 * pair.overlap, 1)
        counts = (pair.matches, pair.inliers) if pair.state in ("matched", "verified") else (None, None)
        return [pair.one, pair.other, states.index(pair.state), overlap, *counts]

    rows = sorted(map(row, summary.pairs), key=lambda row: [(value is None, value or 0) for value in row[:2:-1]])
    # By inliers, else by matches, else by overlap, as the rows are.
    last = next((column for column in (5, 4, 3) if any(row[column] is not None for row in rows)), 0)
    columns = _columns({"image": "image", "with": "image", "state": "state"}, _PAIR_NUMBERS)
    return {"columns": columns, "rows": rows[:_MOST_ROWS], "sorted": last}


def _image_table(summary: Summary) -> dict[str, Any]:
    rows = [
        [
            *(number, image.pairs, image.matched, image.verified, image.keypoints, image.in_tracks),
            None if image.refined is None else round(100 * image.refined),
            *(image.shift_px, image.model, image.points3D, image.focal_length_px),
        ]
        for number, image in enumerate(summary.images)
    ]
    return {"columns": _columns({"image": "image"}, _IMAGE_NUMBERS), "rows": rows, "sorted": 0}


def _columns(kinds: Mapping[str, str], numbers: Iterable[str]) -> list[dict[str, str]]:
    """Columns with titles of given kinds, then those of numbers."""
    return [{"kind": kind, "title": title} for title, kind in {**kinds, **dict.fromkeys(numbers, "number")}.items()]


def _settings(summary: Summary) -> str:
    timings = [(stage, _duration(values["seconds"]) + _counted(values)) for stage, values in summary.timings.items()]
    unfinished = sum(not run.finished for run in summary.runs)
    if unfinished:
        timings.append(("stopped early, or under way", counted(unfinished, "run")))
    made = {key: value for key, value in summary.keypoint_options.items() if value is not None}
    cameras = [
        (camera.model, f"{counted(camera.cameras, 'camera')} of {counted(camera.images, 'image')}")
        for camera in (summary.model.cameras if summary.model else ())
    ]
    told = (*summary.model.mappers, *summary.model.focal_lengths[:_MOST_CAMERAS]) if summary.model else ()
    blocks = (
        ("Matcher", summary.matcher.items()),
        ("Settings of the job", summary.settings.items()),
        ("Keypoint options", made.items()),
        ("Cameras", [*cameras, *((key, value) for key, _, value in (line.partition(": ") for line in told))]),
        ("Time", timings or [("", "no run is recorded in this folder")]),
    )
    panels = "".join(
        f"<div class='panel'><h3>{title}</h3><table class='settings'>{_definitions(rows)}</table></div>"
        for title, rows in blocks
        if rows
    )
    return f"<section><h2>Settings, weights and time</h2><div class='flow'>{panels}</div></section>"


_MOST_CAMERAS = 20
_NOT_COUNTED = ("seconds", "runs")


def _counted(values: Mapping[str, float]) -> str:
    runs = f" in {values['runs']:.0f} runs" if values["runs"] > 1 else ""
    counts = [counted(int(value), key.removesuffix("s")) for key, value in values.items() if key not in _NOT_COUNTED]
    return f"{runs}: {', '.join(counts)}" if counts else runs


def _definitions(rows: Iterable[tuple[str, Any]]) -> str:
    return "".join(
        f"<tr><th>{escape(str(key).replace('_', ' '))}</th><td>{escape(str(value))}</td></tr>" for key, value in rows
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
