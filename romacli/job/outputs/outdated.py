"""Which outputs were made from files that have changed since."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from romacli.errors import RomacliError
from romacli.job.outputs.database import hloc_content
from romacli.job.outputs.model import MODEL, rows_of
from romacli.job.outputs.origins import sources_of
from romacli.job.outputs.recipe import database_output
from romacli.store.layout import Layout


@dataclass(frozen=True)
class Outdated:
    """A file of a job whose source has changed since; `command` makes it anew."""

    file: str
    source: str
    command: str

    def __str__(self) -> str:
        return f"{self.file} was made from an earlier {self.source}. Run `{self.command}` again."


def outdated(layout: Layout) -> list[Outdated]:
    """Which of database and model were made from files that have changed since, by their content."""
    found = []
    noted = sources_of(layout, database_output(layout, layout.database))
    if noted is not None and layout.database.exists() and noted != hloc_content(layout):
        found.append(Outdated(layout.database.name, layout.matches.name, "romacli colmap-import"))
    name, rows = sources_of(layout, MODEL) or (None, None)
    if name is not None and (layout.sparse / "0").exists() and (layout.root / name).is_file():
        with suppress(RomacliError):
            if rows_of(layout.root / name) != rows:
                found.append(Outdated(f"{layout.sparse.name}/0", name, "romacli reconstruct"))
    return found
