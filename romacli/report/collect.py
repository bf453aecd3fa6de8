"""Collect the summary of a report from a job's files, in whatever state; unreadable files are reported."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from romacli import __version__
from romacli.colmap.reading import Model, read_inliers, read_model
from romacli.errors import RomacliError, UsageError
from romacli.job.diagnosis import Placed, placed_of
from romacli.job.outputs.filter import FilterSummary, noted_filter
from romacli.job.outputs.folded import left_out_of, noted_fold
from romacli.job.outputs.hloc import KEYPOINTS, triangle_agreement
from romacli.job.outputs.model import (
    database_of_job,
    guessed_images,
    imported,
    mapper_messages,
    model_warnings,
    shares_camera,
)
from romacli.job.outputs.origins import holds
from romacli.job.outputs.outdated import outdated
from romacli.keypoints.checks import connected
from romacli.keypoints.components import join_tracks
from romacli.mapping.georeference import GpsFit, fit_gps, read_gps
from romacli.matchers.registry import matcher_named
from romacli.progress import Progress
from romacli.show.folder import JobFolder
from romacli.store.hloc import FeaturesFile, MatchesFile, read_provenance, unread_images
from romacli.store.images import read_images
from romacli.store.journal import Journal
from romacli.store.layout import Layout, model_folders
from romacli.types import Pair, Uncertainty, canonical
from romacli.words import counted, counted_of

from .focal import FocalLength, focal_lengths
from .localized import queries_of
from .summary import (
    CameraSummary,
    GpsSummary,
    ImageRow,
    ModelSummary,
    PairRow,
    PairState,
    SmallerModel,
    Summary,
    Tracks,
)

T = TypeVar("T")
# Dropped pairs named in the report; the others are in the manifest.
_DROPPED_SHOWN = 10


@dataclass(frozen=True)
class _Shared:
    """The contents of the hloc files: keypoints and those in tracks by image, matches by pair, and the tracks.

    refined: the share of keypoints that were refined and their median shift in px, for images with any in tracks.
    """

    keypoints: Mapping[str, int] = field(default_factory=dict)
    in_tracks: Mapping[str, int] = field(default_factory=dict)
    matches: Mapping[Pair, int] = field(default_factory=dict)
    tracks: Tracks | None = None
    refined: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def _read_if_there(missing: list[str], paths: Sequence[Path], read: Callable[[], T], instead: T, *, without: str) -> T:
    """Read files, or return a fallback and add the reason to `missing`."""
    absent = [path.name for path in paths if not path.exists()]
    if absent:
        missing.append(f"{without} ({' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing).")
        return instead
    try:
        return read()
    except RomacliError as error:
        missing.append(str(error))
        return instead


def _read_models(layout: Layout, missing: list[str]) -> dict[int, Model]:
    """The models by number; reasons for missing ones are added to `missing`."""
    found = {}
    for folder in model_folders(layout.sparse) or (layout.model,):
        model = _read_if_there(
            missing,
            (layout.sparse,),
            partial(read_model, folder),
            None,
            without="There is no model: run `romacli reconstruct`",
        )
        if model is not None:
            found[int(folder.name)] = model
    return found


def _focal_lengths(layout: Layout, database: Path, model: Model, missing: list[str]) -> tuple[FocalLength, ...]:
    return _read_if_there(missing, (), lambda: focal_lengths(layout, database, model), (), without="")


def _undone(names: Sequence[str], pairs: Sequence[PairRow], unread: frozenset[str]) -> list[str]:
    undone = [{names[pair.one], names[pair.other]} for pair in pairs if pair.state == "not done"]
    lost = sum(not unread.isdisjoint(pair) for pair in undone)
    advice = "Run the same `romacli match` again."
    found = [(len(undone) - lost, "yet"), (lost, "as photographs could not be read: replace or remove these first")]
    return [
        f"{counted_of(count, len(pairs), 'pair', 'is', 'are')} not matched {why}. {advice}"
        for count, why in found
        if count
    ]


def collect(job: JobFolder, progress: Progress) -> tuple[Summary, Mapping[int, Model]]:
    """Collect the summary of a job, and its models by number, the largest being 0.

    Raises:
        StoreError: the journal cannot be read at all.
    """
    missing: list[str] = []
    layout, database = job.layout, database_of_job(job.layout)
    shared = _read_if_there(
        missing,
        (layout.features, layout.matches),
        lambda: _read_shared(job, progress),
        _Shared(),
        without="There are no keypoints: run `romacli match`, which makes them from matched pairs",
    )
    inliers = _read_if_there(
        missing,
        (database,),
        lambda: read_inliers(database),
        None,
        without="No pair is verified: run `romacli colmap-import` or `romacli reconstruct`",
    )
    models = _read_models(layout, missing)
    model, smaller = models.get(0), {number: one for number, one in models.items() if number}
    focal = _focal_lengths(layout, database, model, missing) if model and inliers is not None else ()
    gps = read_gps(database) if inliers is not None else {}
    fit = fit_gps({name: pose.centre for name, pose in model.poses.items()}, gps) if model else None
    _read_if_there(missing, (), lambda: bool(read_images(layout.images)), False, without="")
    with job.journal() as journal:
        missing.extend(journal.damaged)
        names = sorted({*job.names, *shared.keypoints})
        pairs = _pairs(job, journal, names, shared, inliers)
    late = tuple(map(str, outdated(job.layout)))
    missing = [*_undone(names, pairs, unread_images(layout.features)), *missing, *late]
    summary = Summary(
        folder=str(layout.root),
        version=__version__,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=dict(job.manifest.settings),
        matcher=_matcher(str(job.manifest.settings.get("model", ""))),
        keypoint_options=_options((read_provenance(layout.features) or {}).get("options", "{}")),
        images=_images(names, pairs, shared, models),
        pairs=pairs,
        tracks=shared.tracks,
        model=_model_summary(job, model, fit, focal) if model else None,
        verified=inliers is not None,
        groups=_groups(names, pairs),
        checks=_checks(job),
        queries=queries_of(job.runs, missing),
        missing=tuple(missing),
        runs=job.runs,
        placed=_placed(job, models, names, inliers, fit, database) if model else None,
        outdated=late,
        smaller=tuple(SmallerModel(number, *_sizes(one)) for number, one in smaller.items()),
    )
    return summary, models


def _read_shared(job: JobFolder, progress: Progress) -> _Shared:
    """Count the contents of the hloc files; reads the matches of every pair."""
    with FeaturesFile(job.layout.features) as features, MatchesFile(job.layout.matches) as matches:
        names = features.names()
        counts = {name: len(features.keypoints(name)) for name in names}
        uncertainty = {name: features.uncertainty(name) for name in names}
        pairs = matches.pairs(names)
        progress.begin("reading matches", len(pairs))
        found = {}
        for pair in pairs:
            found[canonical(pair)] = matches.matches(*canonical(pair)).indices
            progress.advance()
    tracks = join_tracks(counts, found.items())
    refined = {
        name: _refined(precise, tracks[name])
        for name, precise in uncertainty.items()
        if precise is not None and (tracks[name] >= 0).any()
    }
    ids = np.concatenate([np.zeros(0, np.int64), *tracks.values()])
    lengths = np.unique(ids[ids >= 0], return_counts=True)[1]
    return _Shared(
        keypoints=counts,
        in_tracks={name: int(np.count_nonzero(row >= 0)) for name, row in tracks.items()},
        matches={pair: len(indices) for pair, indices in found.items()},
        tracks=Tracks(
            count=len(lengths),
            mean_length=float(lengths.mean()) if len(lengths) else 0.0,
            longest=int(lengths.max(initial=0)),
            lengths=_histogram(lengths),
        ),
        refined=refined,
    )


def _refined(uncertainty: Uncertainty, tracks: np.ndarray) -> tuple[float, float]:
    """The share of the keypoints in tracks that were refined, and their median shift in px."""
    moved = uncertainty.quality > 0
    shift = np.linalg.norm(uncertainty.shift[moved], axis=1)
    share = int(moved.sum()) / max(int((tracks >= 0).sum()), 1)
    return round(share, 4), round(float(np.median(shift)), 3) if len(shift) else 0.0


def _histogram(lengths: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(lengths, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _pairs(
    job: JobFolder, journal: Journal, names: list[str], shared: _Shared, inliers: Mapping[Pair, int] | None
) -> tuple[PairRow, ...]:
    number = {name: k for k, name in enumerate(names)}
    rows = []
    for pair in job.pairs.pairs:
        key = canonical(pair)
        state: PairState = "not done"
        overlap = None
        verified = inliers.get(key, 0) if inliers is not None else None
        if pair in journal:
            overlap = journal.overlap(pair)
            state = "rejected" if journal.kind(pair) == "rejected" else "verified" if verified else "matched"
        counted = shared.matches.get(key, 0)
        rows.append(PairRow(number[key[0]], number[key[1]], state, overlap, counted, verified))
    return tuple(rows)


def _images(
    names: list[str], pairs: tuple[PairRow, ...], shared: _Shared, models: Mapping[int, Model]
) -> tuple[ImageRow, ...]:
    planned, matched, verified, inliers = Counter[int](), Counter[int](), Counter[int](), Counter[int]()
    for pair in pairs:
        for image in (pair.one, pair.other):
            planned[image] += 1
            matched[image] += pair.state in ("matched", "verified")
            verified[image] += pair.state == "verified"
            inliers[image] += pair.inliers or 0
    in_model = {name: number for number in sorted(models, reverse=True) for name in models[number].poses}
    observations = {name: models[number].observations[name] for name, number in in_model.items()}
    cameras = {name: models[number].cameras[name] for name, number in in_model.items()}
    return tuple(
        ImageRow(
            name=name,
            pairs=planned[image],
            matched=matched[image],
            verified=verified[image],
            keypoints=shared.keypoints.get(name, 0),
            in_tracks=shared.in_tracks.get(name, 0),
            inliers=inliers[image],
            points3D=observations.get(name),
            focal_length_px=round(cameras[name].focal_length_px, 2) if name in cameras else None,
            refined=shared.refined[name][0] if name in shared.refined else None,
            shift_px=shared.refined[name][1] if name in shared.refined else None,
            model=in_model.get(name),
        )
        for image, name in enumerate(names)
    )


def _groups(names: list[str], pairs: tuple[PairRow, ...]) -> tuple[int, ...]:
    """Sizes of the groups connected by pairs, largest first, without single images."""
    is_verified = any(pair.inliers is not None for pair in pairs)
    strength = {
        (names[pair.one], names[pair.other]): int(
            (pair.inliers or 0) if is_verified else pair.state in ("matched", "verified")
        )
        for pair in pairs
    }
    return tuple(len(group) for group in connected(strength))


def _sizes(model: Model) -> tuple[int, int, float, float]:
    """The images, points, mean track length and mean reprojection error of a model."""
    if not len(model.xyz):
        return len(model.poses), 0, 0.0, 0.0
    length, error = float(model.track_lengths.mean()), float(model.errors.mean())
    return len(model.poses), len(model.xyz), round(length, 3), round(error, 4)


def _model_summary(job: JobFolder, model: Model, fit: GpsFit | None, focal: Sequence[FocalLength]) -> ModelSummary:
    return ModelSummary(
        *_sizes(model),
        models=len(model_folders(job.layout.sparse)),
        lengths=_histogram(model.track_lengths),
        cameras=_cameras(model),
        gps=_gps(fit) if fit else None,
        focal_lengths=tuple(map(str, focal)),
        mappers=mapper_messages(job.layout),
    )


def _placed(
    job: JobFolder,
    models: Mapping[int, Model],
    names: Sequence[str],
    inliers: Mapping[Pair, int] | None,
    fit: GpsFit | None,
    database: Path,
) -> Placed:
    return placed_of(
        models[0],
        names if inliers is None else imported(database, names),
        inliers or {},
        gps=fit,
        agreement=triangle_agreement(job.manifest),
        guessed=() if inliers is None else guessed_images(job.layout, database, models[0]),
        shares_camera=inliers is not None and shares_camera(database),
        left_out=left_out_of(job.layout),
        elsewhere=[name for number, model in models.items() if number for name in model.poses],
    )


def _gps(fit: GpsFit) -> GpsSummary:
    residuals = {name: round(residual, 3) for name, residual in fit.residuals_m.items()}
    return GpsSummary(round(fit.median_m, 3), round(fit.largest_m, 3), round(fit.extent_m, 3), residuals)


def _cameras(model: Model) -> tuple[CameraSummary, ...]:
    images = Counter(camera.model for camera in model.cameras.values())
    cameras = Counter(kind for kind, _ in {(camera.model, camera.number) for camera in model.cameras.values()})
    return tuple(CameraSummary(kind, cameras[kind], count) for kind, count in images.items())


def _checks(job: JobFolder) -> tuple[str, ...]:
    """The warnings from making keypoints (`match` or `aggregate`), the filter, the mapper and inspecting the model."""
    held = holds(job.manifest, KEYPOINTS)
    filtered, look = noted_filter(job.manifest), noted_fold(job.layout)
    about_filter = _about_filter(filtered) if filtered else []
    about_model = [*model_warnings(job.layout), *(look.warnings if look else ())]
    return (*map(str, held.get("warnings", ())), *about_filter, *about_model)


def _about_filter(filtered: FilterSummary) -> list[str]:
    """The doubted pairs and their consequences."""
    told = [f"{pair.one} {pair.other}: {pair.reason}" for pair in filtered.dropped[:_DROPPED_SHOWN]]
    if not told:
        return filtered.warnings
    many = counted(len(filtered.dropped), "pair")
    return [f"{many} may show places that only look alike, by `romacli filter`: {'; '.join(told)}", *filtered.warnings]


def _matcher(name: str) -> dict[str, str]:
    try:
        spec = matcher_named(name)
    except UsageError:
        return {"name": name}
    return {"name": name, "summary": spec.summary, "licence": spec.licence}


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except ValueError:
        return {}
    return options if isinstance(options, dict) else {}
