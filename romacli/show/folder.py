"""Read a job's folder for reports, whether finished, unfinished or damaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from romacli.errors import InputError, StoreError
from romacli.names import nearest_name, spelled
from romacli.pairs.listfile import read_own_pairs
from romacli.store.history import Run, photographs_of, read_runs
from romacli.store.images import read_images
from romacli.store.journal import Journal
from romacli.store.layout import Layout
from romacli.store.manifest import manifest_of
from romacli.store.opened import open_journal
from romacli.types import Manifest, PairList


@dataclass(frozen=True)
class JobFolder:
    """The contents of a job's small files."""

    layout: Layout
    manifest: Manifest
    pairs: PairList
    runs: tuple[Run, ...]

    @property
    def names(self) -> list[str]:
        """All images of the list of pairs, ascending."""
        return sorted({name for pair in self.pairs.pairs for name in pair})

    @property
    def photographs(self) -> Path | None:
        """Where the photographs were last read."""
        return photographs_of(self.layout)

    def journal(self) -> Journal:
        """The journal; if the list of photographs is damaged, all records count."""
        try:
            known = read_images(self.layout.images)
        except StoreError:
            known = {}
        return open_journal(self.layout, self.manifest, known)

    def name_of(self, photograph: str) -> str:
        """The job's name of a photograph, given as a name, the end of one, or a path.

        Raises:
            InputError: the job has no such image, or several.
        """
        return meant_by(photograph, self.names, self.layout.root)


def meant_by(photograph: str, names: Sequence[str], folder: Path) -> str:
    """The name meant by a photograph, given as a name, the end of one, or a path, among those in a results folder.

    Raises:
        InputError: it matches none of them, or several.
    """
    if meant := spelled([photograph], names):
        return meant[photograph]
    parts = PurePath(photograph).parts
    longer = [name for name in names if PurePath(name).parts[-len(parts) :] == parts]
    shorter = [name for name in names if parts[-len(PurePath(name).parts) :] == PurePath(name).parts]
    found = longer or sorted(shorter, key=len)[-1:] or [name for name in names if _ends_like(name, parts)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{photograph} may be {' or '.join(found[:3])}. Give the whole name.")
    near = nearest_name(photograph, names)
    guess = f"did you mean {near}?" if near else f"the first of its {len(names)} images is {names[0]}."
    raise InputError(f"{folder} has no image {photograph}; {guess}")


def _ends_like(name: str, parts: tuple[str, ...]) -> bool:
    """Whether a name ends with what was typed, ignoring suffix and case."""
    end = PurePath(name).parts[-len(parts) :]
    return [*map(str.lower, (*end[:-1], PurePath(end[-1]).stem))] == [*map(str.lower, parts)]


def open_folder(layout: Layout) -> JobFolder:
    """Read the small files of a job.

    Raises:
        InputError: the folder contains no job.
        StoreError: a file is damaged.
    """
    return JobFolder(layout, manifest_of(layout), read_own_pairs(layout.pairs), tuple(read_runs(layout.runs)))
