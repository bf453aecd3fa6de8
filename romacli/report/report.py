"""Write the report of a job as one HTML file and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from romacli.disk import write_whole
from romacli.errors import UsageError
from romacli.progress import Progress
from romacli.show.folder import open_folder
from romacli.store.layout import Layout

from .advice import Verdict, verdict, warnings
from .charts import figures
from .collect import collect
from .page import page
from .thumbnails import chosen_pairs, draw_doubted, draw_pairs, read_thumbnails


@dataclass(frozen=True)
class WrittenReport:
    """The files of a report and its contents. html: None if the drawing libraries are not installed."""

    html: Path | None
    json: Path
    verdict: Verdict
    warnings: tuple[str, ...]
    missing: tuple[str, ...]
    values: dict[str, Any]


def write_report(layout: Layout, html: Path | None, images: Path | None, progress: Progress) -> WrittenReport:
    """Report on a job in any state.

    The JSON file is written before anything is drawn, and needs no drawing libraries.

    Args:
        html: the file to write, with a JSON file of the same name next to it, or a folder; None for the job's folder.
        images: the folder of the photographs; None for the folder they were matched in.

    Raises:
        InputError: the folder contains no job.
        StoreError: a file of the job that all others depend on is damaged, or the report cannot be written.
        UsageError: the report's name ends in .json.
    """
    html = html or layout.report
    if html.is_dir():
        html /= layout.report.name
    twin = html.with_suffix(".json")
    if twin == html:
        raise UsageError(f"{html} would be the report's JSON file. Give --output a name that ends in .html.")
    job = open_folder(layout)
    summary, models = collect(job, progress)
    thumbnails = read_thumbnails(job, summary, images or job.photographs, progress)
    judged, advice = verdict(summary), warnings(summary, thumbnails.blank)
    missing = (*summary.missing, *thumbnails.missing)
    chosen = chosen_pairs(summary.pairs) if thumbnails.folder else []
    values = {
        "verdict": {"state": judged.state, "sentence": judged.sentence},
        "warnings": list(advice),
        **summary.values(),
        "missing": list(missing),
        "without_texture": {name: round(share, 3) for name, share in thumbnails.blank.items()},
        "shown_pairs": [{"rank": rank, "pair": list(summary.names_of(pair))} for rank, pair in chosen],
    }
    write_whole(twin, json.dumps(values, indent=1) + "\n")
    if not all(map(find_spec, ("matplotlib", "networkx", "plotly"))):  # of the `report` extra
        return WrittenReport(None, twin, judged, advice, missing, values)
    undrawn = draw_pairs(thumbnails, job, summary, chosen, progress)
    missing = (*missing, *undrawn, *draw_doubted(thumbnails, job))
    text = page(summary, judged, advice, missing, figures(summary, models), thumbnails, twin=twin.name)
    write_whole(html, text)
    return WrittenReport(html, twin, judged, advice, missing, values)
