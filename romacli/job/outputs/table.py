"""The table of a job's outputs: the files of each, how `check` finds faults in them, how they are repaired."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from romacli.colmap.access import database_faults, require_closed
from romacli.colmap.reading import read_model
from romacli.errors import RomacliError
from romacli.job.outputs.database import import_matches
from romacli.job.outputs.output import Fault, Mending, Output
from romacli.job.outputs.recipe import noted_databases, noted_import
from romacli.job.reaggregate import noted_options, reaggregate
from romacli.progress import Progress
from romacli.stop import StopRequest
from romacli.store.hloc import UNREAD, FeaturesFile, MatchesFile
from romacli.store.layout import Layout, model_folders
from romacli.store.ply import read_ply


def _hloc_files(layout: Layout) -> list[Path]:
    return [layout.features, layout.matches]


def _hloc_faults(layout: Layout, progress: Progress) -> list[Fault]:
    faults = []
    for path, read in ((layout.features, _features_fault), (layout.matches, _matches_fault)):
        if path.exists():
            try:
                fault = read(layout, progress)
            except RomacliError as error:
                fault = str(error)
            if fault:
                faults.append(Fault(path, fault.rstrip("."), "--repair rebuilds it from the journal."))
    return faults


def _features_fault(layout: Layout, progress: Progress) -> str | None:
    with FeaturesFile(layout.features) as file:
        names = file.names()
        progress.begin("checking keypoints", len(names))
        for name in names:
            keypoints, size, uncertainty = file.keypoints(name).xy, file.image_size(name), file.uncertainty(name)
            is_unread = size == UNREAD and not len(keypoints)
            if not np.isfinite(keypoints).all() or (min(size) < 1 and not is_unread):
                return f"{name} has keypoints that are not finite, or an invalid size"
            if uncertainty is not None and len(uncertainty.quality) != len(keypoints):
                return f"{name} has {len(keypoints)} keypoints and {len(uncertainty.quality)} covariances"
            progress.advance()
    return None


def _matches_fault(layout: Layout, progress: Progress) -> str | None:
    with FeaturesFile(layout.features) as features, MatchesFile(layout.matches) as file:
        counts = {name: len(features.keypoints(name)) for name in features.names()}
        pairs = file.pairs(counts)
        progress.begin("checking matches", len(pairs))
        for pair in pairs:
            indices = file.matches(*pair).indices
            if len(indices) and (indices.max(axis=0) >= [counts[name] for name in pair]).any():
                return f"the matches of {' '.join(pair)} point outside the keypoints"
            progress.advance()
    return None


def _mend_hloc(layout: Layout, faults: Sequence[Fault], progress: Progress, stop: StopRequest) -> Iterator[Mending]:
    """Rebuild the hloc files with the options they were made with."""
    for fault in faults:
        fault.path.unlink(missing_ok=True)
    try:
        reaggregate(layout, noted_options(layout), progress, stop)
        done, is_repaired = "It was rebuilt from the journal.", True
    except RomacliError as error:
        done, is_repaired = f"It was removed; rebuilding it failed: {error}", False
    yield from (Mending(fault, done, is_repaired) for fault in faults)


def _databases(layout: Layout) -> list[Path]:
    """The databases made from the job; with a damaged manifest, only the one in its folder."""
    try:
        return noted_databases(layout)
    except RomacliError:
        return [layout.database]


def _database_faults(layout: Layout, progress: Progress) -> list[Fault]:
    return [
        Fault(path, fault, f"--repair rebuilds it; so does `{_command(layout, path)}` after you move it away.")
        for path in _databases(layout)
        if path.exists()
        for fault in database_faults(path)
    ]


def _mend_databases(
    layout: Layout, faults: Sequence[Fault], progress: Progress, stop: StopRequest
) -> Iterator[Mending]:
    """Move databases aside and rebuild them from the hloc files with the options they were made with."""
    for path in dict.fromkeys(fault.path for fault in faults):
        aside, command, is_repaired = path.with_name(path.name + ".damaged"), _command(layout, path), False
        done = f"It was put aside as {aside.name}; `{command}` rebuilds it."
        try:
            require_closed(path)
            recipe = noted_import(layout, path)
            path.replace(aside)
            if recipe is not None:
                import_matches(recipe.images, layout, recipe.options, progress, stop)
                done, is_repaired = f"It was rebuilt from the hloc files; the damaged one is {aside.name}.", True
        except (RomacliError, OSError) as error:
            done = f"Rebuilding it failed: {error} Then run `{command}`."
        yield from (Mending(fault, done, is_repaired) for fault in faults if fault.path == path)


def _command(layout: Layout, path: Path) -> str:
    """The command that rebuilds a database."""
    with suppress(RomacliError):
        recipe = noted_import(layout, path)
        if recipe:
            return recipe.command(layout)
    return f"romacli colmap-import PHOTOS -o {shlex.quote(str(layout.root))}"


def _model_faults(layout: Layout, progress: Progress) -> list[Fault]:
    faults = []
    for folder in model_folders(layout.sparse):
        try:
            read_model(folder)
        except RomacliError:
            remedy = "The same `romacli reconstruct` command rebuilds it."
            faults.append(Fault(folder, "it is incomplete or damaged", remedy))
    return faults


def _cloud_faults(layout: Layout, progress: Progress) -> list[Fault]:
    faults = []
    for cloud in _clouds(layout):
        try:
            if cloud.exists():
                read_ply(cloud)
        except RomacliError as error:
            faults.append(Fault(cloud, str(error).rstrip("."), "The same `romacli densify` command rebuilds it."))
    return faults


def _clouds(layout: Layout) -> list[Path]:
    return [one.cloud for one in layout.densified()]


def _dense_files(layout: Layout) -> list[Path]:
    return [
        path
        for one in layout.densified()
        for path in (one.cloud, one.cloud.with_name(f"{one.cloud.name}.vis"), one.depth_maps)
    ]


def _report_faults(layout: Layout, progress: Progress) -> list[Fault]:
    values = layout.report.with_suffix(".json")
    try:
        if values.exists():
            json.loads(values.read_bytes())
    except ValueError as error:
        return [Fault(values, f"it is not valid JSON ({error})", "`romacli report` rebuilds it.")]
    return []


OUTPUTS = (
    Output(_hloc_files, _hloc_files, _hloc_faults, _mend_hloc),
    Output(lambda layout: [layout.database], _databases, _database_faults, _mend_databases),
    Output(lambda layout: [layout.sparse], lambda layout: model_folders(layout.sparse), _model_faults),
    Output(_dense_files, _clouds, _cloud_faults),
    Output(
        lambda layout: [layout.report, layout.report.with_suffix(".json")],
        lambda layout: [layout.report.with_suffix(".json")],
        _report_faults,
    ),
)
