"""Warnings about warps that contradict each other, unconnected images, copies and watermarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from support.planar_views import NODES, PlanarViews, views_along_plane

from romacli.geometry.warp import cell_centres, encode_targets
from romacli.keypoints.aggregate import Aggregation, derive
from romacli.keypoints.checks import (
    SMALLEST_MODEL,
    Checks,
    check,
    connected,
    contradicting,
    expected_models,
    sample_triangles,
    triangle_agreement,
)
from romacli.keypoints.graph import PairGraph
from romacli.keypoints.options import AggregateOptions
from romacli.mapping.options import SMALLEST_GROUP
from romacli.types import CompactWarp, Keypoints, Matches, Pair

OPTIONS = AggregateOptions(spacing=28.0, max_keypoints=1500, refinements=1)
Read = Callable[[Pair], CompactWarp]


class Nobody:
    def begin(self, title: str, total: int) -> None:
        pass

    def advance(self, count: int = 1) -> None:
        pass


def checked(views: PlanarViews, *, read: Read | None = None, pairs: list[Pair] | None = None) -> Checks:
    graph = PairGraph(pairs or views.pairs, read or views.read, lambda: None)
    aggregation = derive(graph, OPTIONS, progress=Nobody())
    return check(graph, aggregation, OPTIONS, images=list(views.sizes), progress=Nobody())


def named(*numbers: int) -> Pair:
    one, other = (f"view{number}.jpg" for number in numbers)
    return one, other


def usable_in(record: CompactWarp, share: float) -> CompactWarp:
    """The same warps, usable only in the first rows of both images."""
    rows = (np.arange(NODES) < share * NODES)[:, None].astype(np.uint8)
    return replace(record, weight_AB=record.weight_AB * rows, weight_BA=record.weight_BA * rows)


def shifted(views: PlanarViews, name: str, x: float, y: float) -> PlanarViews:
    """The same views, except for one that sees the plane shifted by (x, y) px."""
    aside = views.plane_from_image[name] @ np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
    return replace(views, plane_from_image=views.plane_from_image | {name: aside})


def test_sound_warps_give_no_warning() -> None:
    checks = checked(views_along_plane(5).with_errors(noise_px=0.3))
    assert checks.warnings == ()
    assert checks.components == 1
    assert checks.images_without_tracks == ()
    assert checks.triangle_agreement is not None
    assert checks.triangle_agreement > 0.98


def test_a_pair_that_contradicts_all_others_is_named() -> None:
    views = views_along_plane(5)
    elsewhere = shifted(views, "view3.jpg", 90, -70)
    checks = checked(views, read=lambda pair: (elsewhere if pair == named(1, 3) else views).read(pair))
    (warning,) = checks.warnings
    assert "the warps of 1 pair contradict those of all neighbouring pairs: view1.jpg view3.jpg." in warning
    assert "remove pairs that do not show the same scene" in warning


def test_warps_that_agree_nowhere_are_not_blamed_on_single_pairs() -> None:
    views = views_along_plane(4)
    shifts = {pair: np.random.default_rng(k).uniform(-90, 90, 2) for k, pair in enumerate(views.pairs)}
    checks = checked(views, read=lambda pair: shifted(views, pair[1], *shifts[pair]).read(pair))
    (warning,) = [sentence for sentence in checks.warnings if "warp cells" in sentence]
    assert "of warp cells are consistent around image triplets" in warning
    assert "--min-certainty" in warning


def test_a_pair_is_blamed_only_where_the_others_of_its_triangle_are_backed() -> None:
    backed = {(0, 1, 2): 0.1, (0, 2, 3): 0.9, (1, 2, 4): 0.8}
    assert contradicting(backed) == [(0, 1)]
    assert contradicting({(0, 1, 2): 0.1, (0, 2, 3): 0.9}) == []  # (0, 1) or (1, 2): ambiguous
    assert contradicting({}) == []


def test_an_image_with_no_matches_is_named_with_what_to_do() -> None:
    views = views_along_plane(4)
    read = lambda pair: usable_in(views.read(pair), 0.0 if "view3.jpg" in pair else 1.0)  # noqa: E731
    checks = checked(views, read=read)
    assert checks.images_without_tracks == ("view3.jpg",)
    assert checks.warnings == (
        "1 of 4 images shares no keypoint with another: view3.jpg. "
        "Add pairs with photographs of the same scene, or leave such images out.",
    )


def test_an_image_in_no_usable_pair_counts_too() -> None:
    views = views_along_plane(4)
    checks = checked(views, pairs=[pair for pair in views.pairs if "view0.jpg" not in pair])
    assert checks.images_without_tracks == ("view0.jpg",)


def test_groups_that_nothing_joins_are_told_with_the_pairs_to_add() -> None:
    views = views_along_plane(6)
    pairs = [named(0, 1), named(1, 2), named(0, 2), named(3, 4), named(4, 5), named(3, 5)]
    checks = checked(views, pairs=pairs)
    assert checks.components == 2
    (warning,) = checks.warnings
    assert "form 2 groups without matches between them (3 around view0.jpg, 3 around view3.jpg)" in warning
    assert "Match more pairs between view0.jpg and view3.jpg; otherwise expect 2 models, unless --rig-config" in warning


def test_models_are_expected_only_of_groups_that_the_mapper_would_keep() -> None:
    assert SMALLEST_GROUP == SMALLEST_MODEL
    assert expected_models([17, 12]) == 2
    assert expected_models([17, 9, 3, 2]) == 3
    assert expected_models([5, 2]) == 1
    assert expected_models([2]) == 1


def test_the_weak_link_of_a_chain_is_named() -> None:
    views = views_along_plane(6)
    pairs = [named(0, 1), named(1, 2), named(0, 2), named(2, 3), named(3, 4), named(4, 5), named(3, 5)]
    read = lambda pair: usable_in(views.read(pair), 0.04 if pair == named(2, 3) else 1.0)  # noqa: E731
    checks = checked(views, read=read, pairs=pairs)
    assert checks.components == 1
    (warning,) = checks.warnings
    assert "matches of view2.jpg view3.jpg" in warning


def test_copies_of_a_photograph_are_named() -> None:
    views = views_along_plane(4)
    matrices = views.plane_from_image | {"copy.jpg": views.plane_from_image["view1.jpg"]}
    checks = checked(PlanarViews(matrices, dict.fromkeys(matrices, (800, 600))))
    (warning,) = checks.warnings
    assert "1 pair looks like one photograph under two names: copy.jpg view1.jpg. Leave one of each out" in warning


@pytest.mark.parametrize(("size", "is_copy"), [((400, 300), True), ((101, 76), True), ((800, 450), False)])
def test_copies_in_another_size_are_copies_and_crops_are_not(size: tuple[int, int], is_copy: bool) -> None:
    views = views_along_plane(4)
    scale = np.diag([800 / size[0], 800 / size[0] if not is_copy else 600 / size[1], 1.0])
    matrices = views.plane_from_image | {"copy.jpg": views.plane_from_image["view1.jpg"] @ scale}
    sizes = dict.fromkeys(matrices, (800, 600)) | {"copy.jpg": size}
    warnings = checked(PlanarViews(matrices, sizes)).warnings
    copies = [sentence for sentence in warnings if "one photograph under two names" in sentence]
    assert ["copy.jpg view1.jpg" in sentence for sentence in copies] == [True] * is_copy


def test_a_watermark_that_stays_while_the_rest_moves_is_told() -> None:
    views = views_along_plane(4)

    def read(pair: Pair) -> CompactWarp:
        record = views.read(pair)
        marked = np.zeros((NODES, NODES), bool)
        marked[-6:, 8:40] = True
        here = encode_targets(cell_centres((NODES, NODES), (800, 600)), (800, 600))
        changed = {}
        for side in ("AB", "BA"):
            changed[f"target_{side}"] = np.where(marked[..., None], here, getattr(record, f"target_{side}"))
            changed[f"weight_{side}"] = np.where(marked, np.uint8(255), getattr(record, f"weight_{side}"))
        return replace(record, **changed)

    warnings = checked(views, read=read).warnings
    (warning,) = [sentence for sentence in warnings if "watermark" in sentence]
    assert "in 6 of 6 pairs" in warning
    assert "are static while the rest moves" in warning
    assert "Crop or mask it" in warning


def test_tracks_of_two_views_are_told_with_the_way_to_longer_ones() -> None:
    warnings = checked(views_along_plane(4), pairs=[named(0, 1), named(2, 3)]).warnings
    (warning,) = [sentence for sentence in warnings if "views on average" in sentence]
    assert "tracks have 2.00 views on average" in warning
    assert "Match more pairs of neighbouring photographs" in warning


def test_tracks_longer_than_there_are_images_are_told() -> None:
    views = views_along_plane(3)
    graph = PairGraph(views.pairs, views.read, lambda: None)
    straight, crossed = np.array([[0, 0], [1, 1]]), np.array([[0, 1], [1, 0]])
    matches = {
        pair: Matches(crossed if pair == named(0, 2) else straight, np.ones(2, np.float32)) for pair in views.pairs
    }
    keypoints = dict.fromkeys(views.sizes, Keypoints(np.ones((2, 2), np.float32), np.ones(2, np.float32)))
    aggregation = Aggregation.joined(keypoints, matches)
    assert (aggregation.summary.longest_track, aggregation.summary.num_overlong_tracks) == (6, 1)
    warnings = check(graph, aggregation, OPTIONS, images=list(views.sizes), progress=Nobody()).warnings
    (warning,) = [sentence for sentence in warnings if "--method tracks" in sentence]
    assert "1 of 1 track has more keypoints than there are images" in warning


def test_agreement_is_the_share_of_places_two_ways_lead_to() -> None:
    views = views_along_plane(3)
    moved = shifted(views, "view2.jpg", 4, 0)
    read = lambda pair: (moved if pair == named(0, 2) else views).read(pair)  # noqa: E731
    graph = PairGraph(views.pairs, read, lambda: None)
    assert sample_triangles(graph) == [(0, 1, 2)]
    # 4 px at 800 are 8 at 1600: outside of twice 3.5, within twice 4.5.
    assert triangle_agreement(graph, (0, 1, 2), 3.5) == 0
    assert triangle_agreement(graph, (0, 1, 2), 4.5) == pytest.approx(1, abs=0.01)


def test_triangles_are_bounded_however_many_there_are() -> None:
    views = views_along_plane(2)
    names = [f"{number:03}" for number in range(60)]
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
    record = views.read(named(0, 1))
    graph = PairGraph(pairs, lambda _: record, lambda: None)
    triangles = sample_triangles(graph)
    assert len(triangles) == 300
    assert all(i < j < k for i, j, k in triangles)


def test_groups_are_joined_by_pairs_with_enough_matches() -> None:
    counts = {("a", "b"): 5, ("b", "c"): 1, ("c", "d"): 5, ("e", "f"): 0}
    assert connected(counts) == [("a", "b", "c", "d")]
    assert connected(counts, fewest=2) == [("a", "b"), ("c", "d")]
    assert connected({}) == []
