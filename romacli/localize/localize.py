"""Queries against a map: chosen map images, dense matches, attached points, poses; what is matched is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.poses import read_model
from romacli.errors import ImageError, InputError, NothingFoundError, UsageError
from romacli.geometry.warp import warp_fields
from romacli.images.listing import list_images
from romacli.images.metadata import read_metadata
from romacli.localize.attach import Sighting, attach
from romacli.localize.options import Fallback, LocalizeOptions
from romacli.localize.pose import QueryCamera, QueryPose, guessed_camera, read_query_list, solve_pose
from romacli.matchers.matcher import DenseMatcher, Matcher
from romacli.pairing.describe import Describer
from romacli.pairing.kept import match_kept
from romacli.pairs import RetrievalOptions, read_pairs, retrieve
from romacli.progress import Progress
from romacli.run.match import MatchSummary
from romacli.run.options import MatchOptions
from romacli.run.retries.retry import check_retries
from romacli.stop import StopRequest
from romacli.store.history import photographs_of
from romacli.store.journal import Journal
from romacli.store.layout import Layout, written_whole
from romacli.types import CompactWarp, ImageList, Pair, PairList, canonical
from romacli.words import counted, first_few

_LONG_SIDE = 1600
# A pose is solved from no more points than this, those that most images agree on.
_MOST_POINTS = 20_000


@dataclass(frozen=True)
class Map:
    """A model and its photographs. observations: by image name, ids (n,) of points and their places (n, 2)."""

    folder: Path
    images: Path
    model: Any
    points: Mapping[int, np.ndarray]
    observations: Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Localized:
    """What became of a query. why: the reason where it has no pose; fallback: the map image whose pose it got."""

    name: str
    pose: QueryPose | None
    points: int = 0
    map_images: tuple[str, ...] = ()
    why: str = ""
    fallback: str | None = None


@dataclass(frozen=True)
class Names:
    """Queries and map images under one root, so that one loop matches them: names there, and back."""

    root: Path
    queries: Mapping[str, str]
    maps: Mapping[str, str]


def open_map(model: Path, images: Path | None) -> Map:
    """Read a model, of a job or any, with the folder of its photographs.

    Args:
        model: the folder of a COLMAP model, or of a job.
        images: of the photographs; None for where the job's were matched.

    Raises:
        InputError: there is no model, it has no points, or nobody knows where its photographs are.
    """
    layout = Layout(model)
    folder = layout.sparse / "0" if layout.manifest.exists() else model
    read = read_model(folder)
    images = images or photographs_of(layout)
    if images is None:
        raise InputError(f"{model} does not tell where its photographs are. Name their folder with --images DIR.")
    points = {identity: np.array(point.xyz) for identity, point in read.points3D.items()}
    observations = {}
    for image in read.images.values():
        seen = [point for point in image.points2D if point.has_point3D()] if image.has_pose else []
        if seen:
            ids = np.array([point.point3D_id for point in seen], np.int64)
            observations[image.name] = ids, np.array([point.xy for point in seen])
    if not observations:
        raise InputError(f"{folder} holds no image that sees points. Localization needs a model with points.")
    gone = sorted(name for name in observations if not (images / name).is_file())
    if len(gone) == len(observations):
        raise InputError(
            f"{images} holds none of the {len(gone)} photographs of {folder}, such as {gone[0]}. Give the folder that "
            "the names of the model are relative to with --images."
        )
    return Map(folder, images, read, points, {name: seen for name, seen in observations.items() if name not in gone})


def localize(
    queries: Path,
    target: Map,
    output: Path,
    matcher: Matcher,
    options: LocalizeOptions,
    matching: MatchOptions,
    progress: Progress,
    stop: StopRequest,
) -> list[Localized]:
    """Find where queries were taken, and write `poses.txt` and `localized.json` into the output folder.

    Raises:
        InputError: there are no queries, or a list names others.
        UsageError: the matcher gives points, no warps, or cannot try pairs as asked for.
        NothingFoundError: no query has a pose; the files say why.
    """
    if not isinstance(matcher, DenseMatcher):
        raise UsageError(
            f"localize carries the map's points through dense warps, and {matcher.name} gives none. Choose another "
            "--matcher, such as mini."
        )
    check_retries(matcher, matching)
    cameras = read_query_list(options.query_list) if options.query_list else {}
    listed = list_images(queries)
    if strangers := sorted(cameras.keys() - set(listed.names)):
        raise InputError(f"{options.query_list} names queries that {queries} lacks: {first_few(strangers)}.")
    names = _under_one_root(queries, cameras or listed.names, target)
    pairs, unreadable = _pairs(names, output, matcher, options, matching, progress)
    journal, summary = _matched(names, pairs, output, matcher, matching, progress, stop)
    failures = {**unreadable, **summary.failures}
    found = []
    with journal:
        progress.begin("posing", len(names.queries))
        for query in names.queries:
            stop.check()
            found.append(
                _localized(query, names, pairs, journal, target, cameras.get(query), failures, options, matching)
            )
            progress.advance()
    _write(output, found)
    if not any(query.pose for query in found):
        raise NothingFoundError(
            f"none of {counted(len(found), 'query', 'queries')} has a pose; {output / 'localized.json'} says why: "
            f"{found[0].name}: {found[0].why}"
        )
    return found


def _under_one_root(queries: Path, chosen: Sequence[str] | Mapping[str, Any], target: Map) -> Names:
    root = Path(os.path.commonpath([queries.resolve(), target.images.resolve()]))
    as_query, as_map = (folder.resolve().relative_to(root) for folder in (queries, target.images))
    return Names(
        root,
        {name: (as_query / name).as_posix() for name in chosen},
        {name: (as_map / name).as_posix() for name in target.observations},
    )


def _pairs(
    names: Names, output: Path, matcher: Matcher, options: LocalizeOptions, matching: MatchOptions, progress: Progress
) -> tuple[dict[str, list[str]], Mapping[str, str]]:
    """The map images of each query, those that look most like it first, never itself; and what cannot be read."""
    chosen: dict[str, list[str]] = {query: [] for query in names.queries}
    if options.pairs is not None:
        known = [*dict.fromkeys([*names.queries, *names.maps])]
        for query, image in read_pairs(options.pairs, known).pairs.pairs:
            if query in chosen and image in names.maps:
                chosen[query].append(image)
            elif image in chosen and query in names.maps:
                chosen[image].append(query)
        return chosen, {}
    together = [*dict.fromkeys([*names.queries.values(), *names.maps.values()])]
    describer = Describer(matcher, output / "global-features.h5", progress, num_workers=matching.num_workers)
    described = describer(ImageList(names.root, tuple(together)))
    readable = set(described.names)
    found = retrieve(
        described.names,
        described.descriptors,
        RetrievalOptions(num_matched=options.num_matched + 1),
        queries=[name for name in names.queries.values() if name in readable],
        database=[name for name in names.maps.values() if name in readable],
    )
    rows = dict(zip(described.names, described.descriptors, strict=True))
    partners: dict[str, set[str]] = {}
    for one, other in found.pairs:
        partners.setdefault(one, set()).add(other)
        partners.setdefault(other, set()).add(one)
    back = {path: name for name, path in names.maps.items()}
    for query, path in names.queries.items():
        alike = [other for other in partners.get(path, ()) if other in back and other != path]
        alike.sort(key=lambda other: (-float(rows[path] @ rows[other]), other))
        chosen[query] = [back[other] for other in alike[: options.num_matched]]
    return chosen, describer.failures


def _matched(
    names: Names,
    pairs: Mapping[str, Sequence[str]],
    output: Path,
    matcher: Matcher,
    matching: MatchOptions,
    progress: Progress,
    stop: StopRequest,
) -> tuple[Journal, MatchSummary]:
    """Match each query with its map images, but for what has a record."""
    wanted = dict.fromkeys(_pair(names, query, image) for query, images in pairs.items() for image in images)
    unique = {canonical(pair): pair for pair in wanted}
    images = ImageList(names.root, tuple(sorted({name for pair in unique.values() for name in pair})))
    return match_kept(
        *(output / "journal", images, PairList(tuple(unique.values())), matcher, matching, progress),
        settings={"seed": matching.seed},
        stop=stop,
    )


def _pair(names: Names, query: str, image: str) -> Pair:
    return names.queries[query], names.maps[image]


def _localized(
    query: str,
    names: Names,
    pairs: Mapping[str, Sequence[str]],
    journal: Journal,
    target: Map,
    camera: QueryCamera | None,
    failures: Mapping[str, str],
    options: LocalizeOptions,
    matching: MatchOptions,
) -> Localized:
    path = names.root / names.queries[query]
    try:
        metadata = read_metadata(path)
    except ImageError as error:
        return Localized(query, None, why=str(error))
    if reason := failures.get(names.queries[query]):
        return Localized(query, None, why=reason)
    camera = camera or _camera_of_map(target, metadata.size) or guessed_camera(metadata.size, metadata.focal_length_px)
    per_px = max(metadata.size) / _LONG_SIDE
    sightings = {}
    for image in pairs[query]:
        if (sighting := _sighting(journal, _pair(names, query, image), target.observations[image])) is not None:
            sightings[image] = sighting
    attached = attach(list(sightings.values()), options.tolerance * per_px)
    best = np.argsort(-attached.views, kind="stable")[:_MOST_POINTS]
    points = np.array([target.points[identity] for identity in attached.ids[best]]).reshape(-1, 3)
    pose, why = None, ""
    if not sightings:
        why = "it overlaps none of the map images that look most like it"
    elif len(points) < options.min_inliers:
        why = f"it sees {len(points)} points of the map, fewer than --min-inliers {options.min_inliers}"
    else:
        error_px = options.max_error * per_px
        pose = solve_pose(attached.places[best], points, camera, max_error_px=error_px, seed=matching.seed)
        inliers = pose.inliers if pose else 0
        if inliers < max(options.min_inliers, options.min_inlier_ratio * len(points)):
            pose, why = None, f"{inliers} of its {len(points)} points agree on a pose, which is too few"
    if pose is None and options.fallback is Fallback.retrieval and pairs[query]:
        return Localized(query, _pose_of(target, pairs[query][0]), len(points), tuple(sightings), why, pairs[query][0])
    return Localized(query, pose, len(points), tuple(sightings), why)


def _camera_of_map(target: Map, size: tuple[int, int]) -> QueryCamera | None:
    """The map's camera, where one took all its photographs and the query has their size."""
    cameras = list(target.model.cameras.values())
    is_same = len(cameras) == 1 and (cameras[0].width, cameras[0].height) == size
    return QueryCamera(cameras[0]) if is_same else None


def _sighting(journal: Journal, pair: Pair, seen: tuple[np.ndarray, np.ndarray]) -> Sighting | None:
    """Where a map image's warp sees its points in the query, the first of the pair; None where nothing overlaps."""
    ids, places = seen
    record = journal.read(pair) if pair in journal else None
    if not isinstance(record, CompactWarp):
        return None
    read = warp_fields(record)[1].at(places.astype(np.float32))
    width, height = record.size_A
    x, y = read.targets.T
    used = (read.weights > 0) & (x >= 0) & (y >= 0) & (x <= width) & (y <= height)
    return Sighting(ids[used], read.targets[used].astype(np.float64), read.weights[used]) if used.any() else None


def _pose_of(target: Map, image: str) -> QueryPose:
    found = next(one for one in target.model.images.values() if one.name == image)
    pose = found.cam_from_world()
    x, y, z, w = pose.rotation.quat
    return QueryPose((w, x, y, z), tuple(pose.translation), 0, target.model.cameras[found.camera_id], None)


def _write(output: Path, found: Sequence[Localized]) -> None:
    lines = [
        f"{query.name} {' '.join(f'{value:.12g}' for value in (*query.pose.qvec, *query.pose.tvec))}\n"
        for query in found
        if query.pose
    ]
    with written_whole(output / "poses.txt") as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    with written_whole(output / "localized.json") as temporary:
        temporary.write_text(json.dumps([values_of(query) for query in found], indent=1) + "\n", encoding="utf-8")


def values_of(query: Localized) -> dict[str, Any]:
    """A query as JSON values."""
    pose = query.pose
    values: dict[str, Any] = {"name": query.name, "posed": pose is not None, "points": query.points}
    if pose is not None:
        values |= {
            "qvec": list(pose.qvec),
            "tvec": list(map(float, pose.tvec)),
            "inliers": pose.inliers,
            "camera": {"model": pose.camera.model.name, "params": pose.camera.params.tolist()},
            "covariance": None if pose.covariance is None else np.asarray(pose.covariance).tolist(),
        }
    return {**values, "map_images": list(query.map_images), "why": query.why or None, "fallback": query.fallback}
