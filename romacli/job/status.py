"""The progress of a job: what is done, what is out of date, and what comes next. Read-only."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romacli.errors import BusyError, InputError, StoreError
from romacli.job.outputs.hloc import KEYPOINTS, is_of
from romacli.job.outputs.model import MODEL, damaged_model, database_of_job
from romacli.job.outputs.origins import holds, noted_path
from romacli.job.outputs.outdated import outdated
from romacli.mapping.reconstruct import read_content
from romacli.matchers.options import DEFAULT
from romacli.pairs.listfile import read_pairs
from romacli.store.history import photographs_of
from romacli.store.hloc import UNREAD, FeaturesFile, read_provenance
from romacli.store.layout import Layout
from romacli.store.manifest import manifest_of
from romacli.store.opened import open_journal
from romacli.types import Manifest
from romacli.words import counted

DONE, PARTLY, OUTDATED, MISSING, DAMAGED = "done", "partly done", "out of date", "not made yet", "damaged"


@dataclass(frozen=True)
class Stage:
    """A stage of the work. detail: its contents, or why it is out of date. command: completes it."""

    name: str
    state: str
    detail: str
    command: str


@dataclass(frozen=True)
class Status:
    """The stages of a job in order."""

    stages: tuple[Stage, ...]

    @property
    def next(self) -> Stage | None:
        """The first unfinished stage."""
        return next((stage for stage in self.stages if stage.state != DONE), None)


def status(layout: Layout) -> Status:
    """Determine the progress of a job.

    Raises:
        InputError: the folder contains no job.
        StoreError, PairsError: a file of the job is damaged.
    """
    manifest = manifest_of(layout)
    words = shlex.join([str(photographs_of(layout) or "PHOTOGRAPHS"), "-o", str(layout.root)])
    model = str(manifest.settings.get("model", DEFAULT))
    with_model = words if model == DEFAULT else f"{words} --model {shlex.quote(model)}"
    with_pairs = f"{with_model} --pairs {shlex.quote(str(layout.pairs))}"  # without them, all pairs would be matched
    database = database_of_job(layout)
    elsewhere = "" if database == layout.database else f" --database {shlex.quote(str(database))}"
    pairs = read_pairs(layout.pairs, None).pairs
    with open_journal(layout, manifest) as journal:
        waiting = set(journal.waiting(pairs.pairs))
        done = [pair for pair in pairs.pairs if pair not in waiting]
        matched = sum(journal.kind(pair) != "rejected" for pair in done)
        keypoints_hold = is_of(layout, journal, pairs)
    unread = _unread(layout) if waiting and keypoints_hold else frozenset()
    lost = sum(not unread.isdisjoint(pair) for pair in waiting)
    late = {found.file: str(found) for found in outdated(layout)}
    return Status(
        (
            Stage(
                "matching",
                DONE if len(done) + lost == len(pairs) else PARTLY,
                f"{len(done)} of {counted(len(pairs), 'pair')}, {matched} of them matched"
                + (f"; {lost} with unreadable photographs" if lost else ""),
                f"romacli match {with_pairs}",
            ),
            _keypoints(layout, holds(manifest, KEYPOINTS), keypoints_hold, with_pairs),
            _database(layout, database, late, f"romacli colmap-import {words}{elsewhere}"),
            _model(layout, manifest, late, f"{with_pairs}{elsewhere}"),
        )
    )


def _unread(layout: Layout) -> frozenset[str]:
    """The photographs that could not be read when the keypoints were made, as far as known."""
    with suppress(InputError, StoreError), FeaturesFile(layout.features) as features:
        return frozenset(name for name in features.names() if features.image_size(name) == UNREAD)
    return frozenset()


def _keypoints(layout: Layout, held: Mapping[str, Any], is_current: bool, words: str) -> Stage:
    command = f"romacli match {words}"
    if not held or not (layout.features.exists() and layout.matches.exists()):
        return Stage("keypoints", MISSING, layout.features.name, command)
    if damaged := [path.name for path in (layout.features, layout.matches) if read_provenance(path) is None]:
        return Stage("keypoints", DAMAGED, " and ".join(damaged), _repair(layout))
    detail = f"made from {counted(held['tracks'], 'track')} in {counted(held['images'], 'image')}"
    if is_current:
        return Stage("keypoints", DONE, detail, command)
    return Stage("keypoints", OUTDATED, f"{detail}; more pairs were matched since", command)


def _database(layout: Layout, path: Path, late: Mapping[str, str], command: str) -> Stage:
    if not path.exists():
        return Stage("database", MISSING, path.name, command)
    try:
        with suppress(BusyError):
            read_content(path)
    except (InputError, StoreError):
        return Stage("database", DAMAGED, path.name, _repair(layout))
    name = noted_path(layout, path)
    return Stage("database", OUTDATED if name in late else DONE, late.get(name, "verified matches"), command)


def _repair(layout: Layout) -> str:
    return f"romacli check {shlex.quote(str(layout.root))} --repair"


def _model(layout: Layout, manifest: Manifest, late: Mapping[str, str], words: str) -> Stage:
    folder, command = layout.sparse / "0", f"romacli reconstruct {words}"
    if not folder.exists():
        return Stage("model", MISSING, f"{layout.sparse.name}/0", command)
    if (damaged := damaged_model(layout)) is not None:
        return Stage("model", DAMAGED, f"{layout.sparse.name}/{damaged.name}", command)
    held = holds(manifest, MODEL)
    detail = f"{counted(held['registered'], 'image')} registered" if "registered" in held else folder.name
    name = f"{layout.sparse.name}/0"
    return Stage("model", OUTDATED if name in late else DONE, late.get(name, detail), command)
