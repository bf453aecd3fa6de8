"""The progress of a job: what is done, what is out of date, and what comes next. Read-only."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romacli.errors import BusyError, InputError, StoreError
from romacli.job.options import JobOptions, KeypointOptions
from romacli.job.outputs.hloc import KEYPOINTS, is_of
from romacli.job.outputs.model import MODEL, damaged_model, database_of_job
from romacli.job.outputs.origins import holds, noted_path
from romacli.job.outputs.outdated import outdated
from romacli.mapping.reconstruct import read_content
from romacli.matchers.options import DEFAULT
from romacli.options import flags
from romacli.pairs.listfile import read_own_pairs
from romacli.store.history import photographs_of, typed_of
from romacli.store.hloc import read_provenance, unread_images
from romacli.store.layout import Layout
from romacli.store.manifest import manifest_of
from romacli.store.opened import open_journal
from romacli.types import Manifest
from romacli.words import counted, first_few

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


@dataclass(frozen=True)
class _Commands:
    """The commands that go on with a job; after a `reconstruct` that did not end, that alone."""

    match: str
    colmap_import: str
    reconstruct: str


def _commands(layout: Layout, manifest: Manifest, elsewhere: str) -> _Commands:
    """elsewhere: the option for a database outside the job."""
    typed, since = typed_of(layout)
    photographs = shlex.join([str(photographs_of(layout) or "PHOTOGRAPHS"), "-o", str(layout.root)])
    made = set(flags(KeypointOptions)) if "keypoints" in since else set()  # the job remembers how
    options = {flag: words for flag, words in typed.options.items() if flag not in made}
    model = str(manifest.settings.get("model", DEFAULT))
    if "--model" not in options and model != DEFAULT:
        options = {"--model": ["--model", model], **options}
    options = {**options, "--pairs": ["--pairs", str(layout.pairs)]}  # without them, all pairs would be matched
    of_match = {*flags(JobOptions)}
    for_match = shlex.join(word for flag, words in options.items() for word in words if flag in of_match)
    if typed.command != "reconstruct" or "mapping" in since:
        return _Commands(
            f"romacli match {photographs} {for_match}",
            f"romacli colmap-import {photographs}{elsewhere}",
            f"romacli reconstruct {photographs} {for_match}{elsewhere}",
        )
    elsewhere = "" if "--database" in options else elsewhere
    every = shlex.join(word for words in options.values() for word in words)
    return _Commands(*[f"romacli reconstruct {photographs} {every}{elsewhere}"] * 3)


def status(layout: Layout) -> Status:
    """Determine the progress of a job.

    Raises:
        InputError: the folder contains no job.
        StoreError: a file of the job is damaged.
    """
    manifest = manifest_of(layout)
    database = database_of_job(layout)
    elsewhere = "" if database == layout.database else f" --database {shlex.quote(str(database))}"
    commands = _commands(layout, manifest, elsewhere)
    pairs = read_own_pairs(layout.pairs)
    with open_journal(layout, manifest) as journal:
        waiting = set(journal.waiting(pairs.pairs))
        done = [pair for pair in pairs.pairs if pair not in waiting]
        matched = sum(journal.kind(pair) != "rejected" for pair in done)
        keypoints_hold = is_of(layout, journal, pairs)
    unread = unread_images(layout.features) if waiting and keypoints_hold else frozenset()
    lost = sum(not unread.isdisjoint(pair) for pair in waiting)
    late = {found.file: str(found) for found in outdated(layout)}
    return Status(
        (
            Stage(
                "matching",
                DONE if len(done) + lost == len(pairs) else PARTLY,
                f"{len(done)} of {counted(len(pairs), 'pair')}, {matched} of them matched"
                + (f"; {lost} with unreadable photographs" if lost else ""),
                commands.match,
            ),
            _keypoints(layout, holds(manifest, KEYPOINTS), keypoints_hold, commands.match),
            _database(layout, database, late, commands.colmap_import),
            _model(layout, manifest, late, commands.reconstruct),
        )
    )


def _keypoints(layout: Layout, held: Mapping[str, Any], is_current: bool, command: str) -> Stage:
    missing = [path.name for path in (layout.features, layout.matches) if not (held and path.exists())]
    if missing:
        return Stage("keypoints", MISSING, " and ".join(missing), command)
    if damaged := [path.name for path in (layout.features, layout.matches) if read_provenance(path) is None]:
        return Stage("keypoints", DAMAGED, " and ".join(damaged), _repair(layout))
    detail = f"made from {counted(held['tracks'], 'track')} in {counted(held['images'], 'image')}"
    if is_current:
        return Stage("keypoints", DONE, detail, command)
    return Stage("keypoints", OUTDATED, f"{detail}, but not from the pairs matched now", command)


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


def _model(layout: Layout, manifest: Manifest, late: Mapping[str, str], command: str) -> Stage:
    folder, name = layout.model, noted_path(layout, layout.model)
    if not folder.exists():
        return Stage("model", MISSING, name, command)
    if (damaged := damaged_model(layout)) is not None:
        return Stage("model", DAMAGED, f"{layout.sparse.name}/{damaged.name}", command)
    held = holds(manifest, MODEL)
    detail = f"{counted(held['registered'], 'image')} registered" if "registered" in held else folder.name
    if others := held.get("others"):
        detail += f"; {counted(len(others), 'smaller model')}, of {first_few([*map(str, others)])}"
    return Stage("model", OUTDATED if name in late else DONE, late.get(name, detail), command)
