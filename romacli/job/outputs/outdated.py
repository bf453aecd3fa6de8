"""Which outputs were made from files that have changed since."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass

from romacli.errors import RomacliError
from romacli.job.outputs.database import hloc_digests
from romacli.job.outputs.model import CLOUD, DEPTH_MAPS, MODEL, dense_output, model_digests, rows_of
from romacli.job.outputs.origins import noted_path, sources_of
from romacli.job.outputs.recipe import database_output, noted_databases
from romacli.store.layout import Layout


@dataclass(frozen=True)
class Outdated:
    """A file of a job whose source has changed since; `command` rebuilds it."""

    file: str
    source: str
    command: str

    def __str__(self) -> str:
        return f"{self.file} was made from an earlier {self.source}. Run `{self.command}` again."


def outdated(layout: Layout) -> list[Outdated]:
    """Which databases, and whether model, dense cloud and depth maps, were made from files that have changed since.

    Those whose sources cannot be read are skipped.
    """
    found = []
    for database in noted_databases(layout):
        noted = sources_of(layout, database_output(layout, database))
        with suppress(RomacliError):
            if noted is not None and database.exists() and noted != hloc_digests(layout):
                is_usual = database == layout.database
                command = "romacli colmap-import" + ("" if is_usual else f" --database {shlex.quote(str(database))}")
                found.append(Outdated(noted_path(layout, database), layout.matches.name, command))
    name, rows = sources_of(layout, MODEL) or (None, None)
    if name is not None and layout.model.exists() and (layout.root / name).is_file():
        with suppress(RomacliError):
            if rows_of(layout.root / name) != rows:
                found.append(Outdated(noted_path(layout, layout.model), name, "romacli reconstruct"))
    for one in layout.densified():
        command = "romacli densify" + (f" {shlex.quote(str(one.model))}" if one.number else "")
        dense = ((CLOUD, one.cloud, command), (DEPTH_MAPS, one.depth_maps, f"{command} --depth-maps"))
        for output, path, again in dense:
            if path.exists() and is_of_earlier_model(one, output):
                found.append(Outdated(noted_path(layout, path), noted_path(layout, one.model), again))
    return found


def is_of_earlier_model(layout: Layout, output: str) -> bool:
    """Whether the dense files of a layout's model were made from an earlier one of its number; False if unknown."""
    noted = sources_of(layout, dense_output(layout, output))
    return noted is not None and layout.model.exists() and noted != model_digests(layout.model)
