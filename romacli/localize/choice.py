"""Choose the map images a query is matched with: similar ones, a list's, or those with overlapping view frusta."""

from __future__ import annotations

from pathlib import Path

from romacli.colmap.pose_files import read_written_poses
from romacli.colmap.poses import Pose
from romacli.errors import InputError
from romacli.localize.map import Map
from romacli.localize.options import LocalizeOptions
from romacli.localize.queries import Queries, Query
from romacli.mapping.views import View, depths_of, edges_of
from romacli.names import respelled, with_guess
from romacli.pairing.describe import Describer
from romacli.pairing.model import PosesOptions
from romacli.pairs.listfile import read_pairs
from romacli.pairs.poses import Frustum, overlapping_views
from romacli.pairs.retrieval import RetrievalOptions, retrieve
from romacli.types import ImageList

# For each query, its map images, best first; and for queries without any, the reason.
Chosen = tuple[dict[str, list[str]], dict[str, str]]


def choose(queries: Queries, target: Map, options: LocalizeOptions, describer: Describer) -> Chosen:
    """Choose map images for every readable query, never the query itself.

    Raises:
        InputError: a list of pairs or poses names other photographs.
    """
    if options.pairs is not None:
        return _listed(options.pairs, queries)
    if options.near is not None:
        return _near(options.near, queries, target, options)
    return _alike(queries, describer, options)


def _listed(path: Path, queries: Queries) -> Chosen:
    chosen: dict[str, list[str]] = {query: [] for query in queries.readable}
    known = [*dict.fromkeys([*queries.listed, *queries.map_files])]
    for pair in read_pairs(path, known).pairs.pairs:
        for query, image in (pair, pair[::-1]):
            if query in chosen and image in queries.map_files and queries.itself.get(query) != image:
                chosen[query].append(image)
                break
    if not any(chosen.values()):
        raise InputError(f"{path} contains no pair of a query and a map image. Give other --pairs.")
    return chosen, {query: f"{path} pairs it with no map image" for query, images in chosen.items() if not images}


def _alike(queries: Queries, describer: Describer, options: LocalizeOptions) -> Chosen:
    files = {name: query.file for name, query in queries.readable.items()}
    together = [*dict.fromkeys([*files.values(), *queries.map_files.values()])]
    described = describer(ImageList(queries.root, tuple(together)))
    row_of = {name: row for row, name in enumerate(described.names)}
    found = retrieve(
        described.names,
        described.descriptors,
        RetrievalOptions(num_matched=options.num_matched + 1),
        queries=[file for file in files.values() if file in row_of],
        database=[file for file in queries.map_files.values() if file in row_of],
    )
    partners: dict[str, set[str]] = {}
    for one, other in found.pairs:
        partners.setdefault(one, set()).add(other)
        partners.setdefault(other, set()).add(one)
    back = {file: name for name, file in queries.map_files.items()}
    chosen = {}
    for query, file in files.items():
        alike = [each for each in partners.get(file, ()) if each in back and back[each] != queries.itself.get(query)]
        scores = described.descriptors[[row_of[each] for each in alike]] @ described.descriptors[row_of.get(file, 0)]
        ranked = [each for _, each in sorted(zip(-scores, alike, strict=True))]
        chosen[query] = [back[each] for each in ranked[: options.num_matched]]
    why = {name: describer.failures[file] for name, file in files.items() if file in describer.failures}
    return chosen, why


def _near(path: Path, queries: Queries, target: Map, options: LocalizeOptions) -> Chosen:
    """Choose by approximate poses: map images that see the same part of the scene."""
    poses = respelled(read_written_poses(path), queries.listed)
    known = [name for name in queries.readable if name in poses]
    if not known:
        raise InputError(
            f"{path} has a pose for {with_guess(min(poses), queries.listed)}, but for no query, such as "
            f"{queries.listed[0]}. Names are relative to the folder of queries."
        )
    views = {name: _view(poses[name], queries.readable[name], target) for name in known}
    asked = [name for name in known if views[name].depths is not None]
    images = [name for name, view in target.views.items() if view.depths is not None]
    asks = PosesOptions()
    found = overlapping_views(
        [_frustum(views[name]) for name in asked],
        [_frustum(target.views[name]) for name in images],
        num_matched=options.num_matched + 1,
        max_rotation_deg=asks.max_rotation_deg,
        min_frustum_overlap=asks.min_frustum_overlap,
    )
    chosen: dict[str, list[str]] = {query: [] for query in queries.readable}
    for name, best in zip(asked, found, strict=True):
        others = [images[row] for row in best if images[row] != queries.itself.get(name)]
        chosen[name] = others[: options.num_matched]
    unknown = f"{path} has no pose for it"
    nowhere = f"from its pose in {path} it sees nothing that a map image shows"
    return chosen, {name: nowhere if name in poses else unknown for name in queries.readable if not chosen[name]}


def _view(pose: Pose, query: Query, target: Map) -> View:
    """The view from a query's approximate pose, with the depths of the map points inside it."""
    edges = edges_of(query.camera.camera)
    seen = target.xyz @ pose.rotation.T + pose.translation
    x, y, depth = seen.T
    left, top, right, bottom = (edge * depth for edge in edges)
    inside = (depth > 0) & (x > left) & (x < right) & (y > top) & (y < bottom)
    return View(pose, edges, depths_of(pose, target.xyz[inside]))


def _frustum(view: View) -> Frustum:
    assert view.depths is not None
    return Frustum(view.pose.rotation, view.pose.translation, *view.edges, *view.depths)
