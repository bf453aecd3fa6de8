"""The queries localized in a job's model, read from the folders recorded in its history."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from romacli.errors import RomacliError
from romacli.store.history import Run
from romacli.store.localized import read_localized

from .summary import QueryRow


def queries_of(runs: Sequence[Run], missing: list[str]) -> tuple[QueryRow, ...]:
    """The queries of each recorded folder; for each unreadable folder a sentence is added to `missing`."""
    rows: list[QueryRow] = []
    for folder in dict.fromkeys(
        run.output for run in runs if run.stage == "localizing" and run.finished and run.output
    ):
        try:
            found = read_localized(Path(folder))
        except RomacliError as error:
            missing.append(str(error))
            continue
        for row in found:
            is_own = "qvec" in row and not row.get("fallback")
            rows.append(
                QueryRow(
                    name=str(row["name"]),
                    folder=folder,
                    posed=is_own,
                    inliers=int(row.get("inliers", 0)) if is_own else 0,
                    points=int(row.get("points", 0)),
                    map_images=tuple(map(str, row.get("map_images") or ())),
                    why=str(row.get("why") or ""),
                    fallback=row.get("fallback"),
                )
            )
    return tuple(rows)
