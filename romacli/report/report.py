"""A job told in one HTML file and the same as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from romacli.errors import UsageError
from romacli.progress import Progress
from romacli.store.layout import Layout, written_whole

from .advice import Verdict, verdict, warnings
from .album import chosen_pairs, draw_pairs, make_album
from .charts import figures
from .collect import collect
from .folder import open_folder
from .page import page


@dataclass(frozen=True)
class WrittenReport:
    """Where a report lies and what it says. html: None where the libraries that draw are not installed."""

    html: Path | None
    json: Path
    verdict: Verdict
    warnings: tuple[str, ...]
    missing: tuple[str, ...]
    values: dict[str, Any]


def write_report(layout: Layout, html: Path | None, images: Path | None, progress: Progress) -> WrittenReport:
    """Report on a job in whatever state it is.

    Args:
        html: the file to write, with a JSON file of the same name beside it, or a folder for it; None for the job's
            folder.
        images: the folder of the photographs; None for where they were matched.

    The JSON file is written before anything is drawn, and needs no library that draws.

    Raises:
        InputError: the folder holds no job.
        StoreError: a file of the job that all others depend on is damaged, or the report cannot be written.
        UsageError: the report's name ends in .json.
    """
    html = html or layout.report
    if html.is_dir():
        html /= layout.report.name
    twin = html.with_suffix(".json")
    if twin == html:
        raise UsageError(f"{html} is the name of the JSON beside the report. Give --output a name that ends in .html.")
    job = open_folder(layout)
    facts, model = collect(job, progress)
    album = make_album(job, facts, images or job.photographs, progress)
    judged, advice = verdict(facts), warnings(facts, album.blank)
    missing = (*facts.missing, *album.missing)
    chosen = chosen_pairs(facts.pairs) if album.folder else []
    values = {
        "verdict": {"state": judged.state, "sentence": judged.sentence},
        "warnings": list(advice),
        **facts.values(),
        "missing": list(missing),
        "without_texture": {name: round(share, 3) for name, share in album.blank.items()},
        "shown_pairs": [{"rank": rank, "pair": list(facts.names_of(pair))} for rank, pair in chosen],
    }
    with written_whole(twin) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    if not can_draw():
        return WrittenReport(None, twin, judged, advice, missing, values)
    undrawn = draw_pairs(album, job, facts, chosen, progress)
    missing = (*missing, *undrawn)
    text = page(facts, judged, advice, missing, figures(facts, model), album, twin=twin.name)
    with written_whole(html) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return WrittenReport(html, twin, judged, advice, missing, values)


def can_draw() -> bool:
    """Whether the extra is installed that draws reports."""
    return all(map(find_spec, ("matplotlib", "networkx", "plotly")))
