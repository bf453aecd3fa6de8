"""Consistency checks without ground truth: warps against warps, unconnected images.

Pure: from warps and an aggregation to numbers and sentences. Lengths are px at a long side of 1600.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from romacli.forest import Forest
from romacli.geometry.warp import cell_centres, compose
from romacli.keypoints.graph import Edge, PairGraph
from romacli.keypoints.options import AggregateOptions
from romacli.keypoints.result import Aggregation
from romacli.progress import Progress
from romacli.types import Pair
from romacli.words import counted, counted_of, first_few

T = TypeVar("T")
Triangle = tuple[int, int, int]

# Bounds the work: warps are read again for every triangle and pair.
_MAX_TRIANGLES = 300
_TRIANGLES_PER_PAIR = 3
_MAX_PAIRS_WATCHED = 300
_LATTICE = (64, 64)
# Fewer common cells are not significant for a triangle, or for motion.
_FEWEST_PLACES = 20
# A triangle supports its pairs from this agreement on; a whole job below it is suspicious.
_MIN_AGREEMENT = 0.5
# Below this hardly any point is seen by a third image.
_MIN_TRACK_LENGTH = 2.2
# Matches of external keypoints always connect a few different points.
_OVERLONG_SHARE = 0.05
# A link is weak below twice COLMAP's minimum matches, or below this fraction of the median pair.
_FEW_MATCHES = 30
_FEW_OF_MEDIAN = 0.05
# Places that move less stand still: mini's warp between two copies of a photograph, which should not move at all,
# stays within it at 98 % of places. Part of the picture stands still while the rest moves at least so far; that is
# 8 to 12 % of the matched places with a watermark over half of the width; on photographs without, 1 % of most pairs
# and 4 % of one.
_STILL_PX = 2.0
_SAME_SHARE = 0.95
_STILL_SHARE = 0.03
_MOVING_PX = 10.0
# Warps of copies overlap nearly everywhere, so all such pairs are checked.
_COPY_OVERLAP = 0.9
_NAMES_SHOWN = 3
# Fewer images that match no others become no model.
SMALLEST_MODEL = 3


@dataclass(frozen=True)
class Checks:
    """The results of the checks.

    components: groups of images connected by matches, without single images.
    triangle_agreement: mean over image triplets i, j, k of the fraction of cells where the warp from i to k agrees with
        the one via j; None without triplets.
    images_without_tracks: images that share no keypoint with another.
    warnings: sentences with advice.
    """

    components: int
    triangle_agreement: float | None
    images_without_tracks: tuple[str, ...]
    warnings: tuple[str, ...]


def check(
    graph: PairGraph | None,
    aggregation: Aggregation,
    options: AggregateOptions,
    *,
    images: Sequence[str],
    progress: Progress,
) -> Checks:
    """Check a job as a whole for what would mislead a mapper.

    Args:
        graph: the aggregated pairs; None if they have points instead of warps.
        images: all images in the list of pairs, including those without a usable pair.
    """
    agreement, of_warps = None, list[str]()
    if graph is not None:
        agreement, of_warps = _check_warps(graph, options, progress)
        # Matches of points are unverified here: wrong ones create tracks of any length.
        of_warps = [*_about_tracks(aggregation, len(images)), *of_warps]
    parts = connected(aggregation.num_matches)
    joined = {name for part in parts for name in part}
    alone = tuple(name for name in images if name not in joined)
    return Checks(
        components=len(parts),
        triangle_agreement=agreement,
        images_without_tracks=alone,
        warnings=(
            *_about_parts(parts, aggregation.num_matches),
            *_about_images_alone(alone, len(images)),
            *of_warps,
        ),
    )


def _check_warps(graph: PairGraph, options: AggregateOptions, progress: Progress) -> tuple[float | None, list[str]]:
    """The agreement of warps around triplets, and warnings about them and about static content."""
    triangles, watched = sample_triangles(graph), _pairs_to_watch(graph)
    progress.begin("checking warps", len(triangles) + len(watched))
    agreement = {}
    for triangle in triangles:
        agreement[triangle] = triangle_agreement(graph, triangle, options.tolerance)
        progress.advance()
    motions = {}
    for edge in watched:
        motions[graph.pair_of(edge)] = motion(graph, edge)
        progress.advance()
    measured = {triangle: share for triangle, share in agreement.items() if share is not None}
    mean = float(np.mean(list(measured.values()))) if measured else None
    return mean, [*_about_triangles(graph, measured), *_about_motion(motions)]


def sample_triangles(graph: PairGraph) -> list[Triangle]:
    """Triplets of mutually paired images, ascending: some per pair if there are few, else an even sample."""
    neighbours = [set(others) for others in graph.neighbours]
    found: set[Triangle] = set()
    for i, j in graph.edges:
        for k in _spread(sorted(neighbours[i] & neighbours[j]), _TRIANGLES_PER_PAIR):
            first, middle, last = sorted((i, j, k))
            found.add((first, middle, last))
    return _spread(sorted(found), _MAX_TRIANGLES)


def triangle_agreement(graph: PairGraph, triangle: Triangle, tolerance: float) -> float | None:
    """The fraction of cells in i whose warp to k via j ends within twice the tolerance of the direct warp.

    None if hardly any cell can be followed both ways.
    """
    i, j, k = triangle
    places = cell_centres(_LATTICE, graph.sizes[i]).reshape(-1, 2)
    over = compose(places, (graph.warp(i, j), graph.warp(j, k)))
    direct = graph.warp(i, k).at(places)
    usable = (over.weights > 0) & (direct.weights > 0)
    if np.count_nonzero(usable) < _FEWEST_PLACES:
        return None
    distance = np.linalg.norm(over.targets[usable] - direct.targets[usable], axis=1)
    return float(np.mean(distance < 2 * tolerance * graph.scales[k]))


@dataclass(frozen=True)
class Motion:
    """How a warp moves an image: the fraction of static cells, and the median motion of the others in px."""

    still: float
    moving_px: float


def motion(graph: PairGraph, edge: Edge) -> Motion | None:
    """The static content of a pair, at a common size.

    None if the aspect ratios differ, or if little matches.
    """
    i, j = edge
    (width_i, height_i), (width_j, height_j) = graph.sizes[i], graph.sizes[j]
    if abs(width_i * height_j - width_j * height_i) > max(graph.sizes[i] + graph.sizes[j]):  # sides are rounded to 1 px
        return None
    ratio = np.array([width_j / width_i, height_j / height_i], np.float32)
    places = cell_centres(_LATTICE, graph.sizes[i]).reshape(-1, 2)
    sample = graph.warp(i, j).at(places)
    usable = sample.weights > 0
    if np.count_nonzero(usable) < _FEWEST_PLACES:
        return None
    scale = max(graph.scales[j], graph.scales[i] * ratio.max())  # of the smaller one's pixels, where they are coarse
    way = np.linalg.norm(sample.targets - places * ratio, axis=1)[usable] / scale
    is_still = way < _STILL_PX
    return Motion(float(is_still.mean()), float(np.median(way[~is_still])) if not is_still.all() else 0.0)


def connected(num_matches: Mapping[Pair, int], *, fewest: int = 1) -> list[tuple[str, ...]]:
    """Groups of images connected by pairs with at least this many matches, largest first, names ascending."""
    names = sorted({name for pair, count in num_matches.items() if count >= fewest for name in pair})
    number = {name: k for k, name in enumerate(names)}
    edges = [[number[name] for name in pair] for pair, count in num_matches.items() if count >= fewest]
    forest = Forest(len(names))
    one, other = np.array(edges, np.intp).reshape(-1, 2).T
    forest.join(one, other)
    return [tuple(names[k] for k in part) for part in forest.parts()]


def expected_models(sizes: Sequence[int]) -> int:
    """The number of models that unconnected groups become: the largest group, and others that are not too small."""
    return max(1, sum(size >= SMALLEST_MODEL for size in sizes))


def _about_parts(parts: list[tuple[str, ...]], num_matches: Mapping[Pair, int]) -> list[str]:
    """Unconnected groups, and groups connected by few matches."""
    warnings = []
    if len(parts) > 1:
        groups = ", ".join(f"{len(part)} around {part[0]}" for part in parts[:_NAMES_SHOWN])
        warnings.append(
            f"the images form {len(parts)} groups without matches between them ({groups}). Match more pairs between "
            f"{parts[0][0]} and {parts[1][0]}; otherwise {_outcome(parts)}, unless --rig-config joins the groups."
        )
    counts = [count for count in num_matches.values() if count]
    fewest = max(_FEW_MATCHES, _FEW_OF_MEDIAN * float(np.median(counts))) if counts else 0
    group_of = {name: k for k, part in enumerate(connected(num_matches, fewest=int(fewest))) for name in part}
    weak = {pair: count for pair, count in num_matches.items() if 0 < count < fewest}
    links = [pair for pair in weak if len({group_of.get(name, name) for name in pair}) == 2]
    if links:
        one, other = max(links, key=lambda pair: weak[pair])
        warnings.append(
            f"two groups of images are connected only by {counted(weak[one, other], 'match', 'matches')} of {one} "
            f"{other}. Match more pairs between the groups, or add a photograph between these two."
        )
    return warnings


def _outcome(parts: Sequence[Sequence[str]]) -> str:
    models = expected_models([len(part) for part in parts])
    if models > 1:
        return f"expect {models} models"
    return f"expect a model without the {counted(sum(map(len, parts[1:])), 'image')} outside the largest"


def _about_images_alone(alone: tuple[str, ...], num_images: int) -> list[str]:
    if not alone:
        return []
    names = first_few(alone, _NAMES_SHOWN)
    return [
        f"{counted_of(len(alone), num_images, 'image', 'shares', 'share')} no keypoint with another: {names}. Add "
        "pairs with photographs of the same scene, or leave such images out."
    ]


def _about_tracks(aggregation: Aggregation, num_images: int) -> list[str]:
    """Tracks too short to chain images, or longer than there are images."""
    summary, warnings = aggregation.summary, []
    if num_images > 2 and summary.num_tracks and summary.mean_track_length < _MIN_TRACK_LENGTH:
        warnings.append(
            f"tracks have {summary.mean_track_length:.2f} views on average, so few points are seen by three images "
            "and COLMAP may register hardly any. Match more pairs of neighbouring photographs."
        )
    if summary.num_overlong_tracks > _OVERLONG_SHARE * summary.num_tracks:
        warnings.append(
            f"{counted_of(summary.num_overlong_tracks, summary.num_tracks, 'track', 'has', 'have')} more keypoints "
            "than there are images, so matches connect different points. Use --method tracks, or a smaller "
            "--max-distance with external keypoints."
        )
    return warnings


def _about_triangles(graph: PairGraph, agreement: Mapping[Triangle, float]) -> list[str]:
    """Low agreement of all warps, or single pairs that contradict the others."""
    if agreement and np.median(list(agreement.values())) < _MIN_AGREEMENT:
        return [
            f"only {np.mean(list(agreement.values())):.0%} of warp cells are consistent around image triplets. Check "
            "that the photographs show one static scene, raise --min-certainty, or try --model roma-outdoor."
        ]
    wrong = contradicting(agreement)
    if not wrong:
        return []
    pairs = first_few([" ".join(graph.pair_of(edge)) for edge in wrong], _NAMES_SHOWN)
    return [
        f"the warps of {counted(len(wrong), 'pair')} contradict those of all neighbouring pairs: {pairs}. Inspect "
        "these photographs; remove pairs that do not show the same scene."
    ]


def contradicting(agreement: Mapping[Triangle, float]) -> list[Edge]:
    """Pairs that no triplet supports, although one of theirs has two other pairs supported elsewhere."""
    best: dict[Edge, float] = {}
    for triangle, share in agreement.items():
        for edge in _sides(triangle):
            best[edge] = max(share, best.get(edge, 0.0))
    backed = {edge for edge, share in best.items() if share >= _MIN_AGREEMENT}
    unbacked = [set(_sides(triangle)) - backed for triangle in agreement]
    return sorted({edge for sides in unbacked if len(sides) == 1 for edge in sides})


def _sides(triangle: Triangle) -> tuple[Edge, Edge, Edge]:
    i, j, k = triangle
    return (i, j), (j, k), (i, k)


def _about_motion(motions: Mapping[Pair, Motion | None]) -> list[str]:
    """Copies of one photograph, and static content while the camera moves."""
    seen = {pair: moved for pair, moved in motions.items() if moved is not None}
    copies = [pair for pair, moved in seen.items() if moved.still >= _SAME_SHARE]
    fixed = [
        moved.still
        for moved in seen.values()
        if _STILL_SHARE <= moved.still < _SAME_SHARE and moved.moving_px >= _MOVING_PX
    ]
    warnings = []
    if copies:
        pairs = first_few([" ".join(pair) for pair in copies], _NAMES_SHOWN)
        warnings.append(
            f"{counted(len(copies), 'pair looks', 'pairs look')} like one photograph under two names: {pairs}. Leave "
            "one of each out; copies add no view and can mislead the mapper."
        )
    if fixed and len(fixed) >= (len(seen) - len(copies)) / 2:
        warnings.append(
            f"in {len(fixed)} of {len(seen)} pairs {np.median(fixed):.0%} of the matched cells are static while the "
            "rest moves: a watermark, a border, dirt on the lens or the background of a turntable. Crop or mask it; "
            "its matches suggest that the camera did not move."
        )
    return warnings


def _pairs_to_watch(graph: PairGraph) -> list[Edge]:
    copies = {edge for edge in graph.edges if graph.overlap(edge) >= _COPY_OVERLAP}
    return sorted(copies.union(_spread(graph.edges, _MAX_PAIRS_WATCHED)))


def _spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` items, evenly spaced."""
    if len(items) <= count:
        return list(items)
    return [items[k] for k in np.linspace(0, len(items) - 1, count).astype(int)]
