from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest
from support.planar_views import PlanarViews, transform, views_along_plane

from romacli.geometry.warp import warp_fields
from romacli.refine.options import RefineOptions
from romacli.refine.photograph import Photograph
from romacli.refine.tracks import Links, RefinedTracks, refine_tracks
from romacli.synthetic.textures import bricks

OPTIONS = RefineOptions()
Tracks = tuple[list[np.ndarray], list[np.ndarray], dict[tuple[int, int], Links]]


@pytest.fixture(scope="module")
def views() -> PlanarViews:
    return views_along_plane(4, size=(480, 360), step=40)


@pytest.fixture(scope="module")
def photographs(views: PlanarViews) -> list[Photograph]:
    texture = cv2.resize(bricks(np.random.default_rng(2)), (1536, 1536), interpolation=cv2.INTER_CUBIC)
    texture = cv2.cvtColor(texture, cv2.COLOR_RGB2GRAY)
    # OpenCV has pixel centres at integer coordinates; the plane's origin is inside the texture.
    centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    into = np.array([[1, 0, 500], [0, 1, 500], [0, 0, 1.0]])
    return [
        Photograph.prepare(
            cv2.warpPerspective(
                texture,
                np.linalg.inv(centre) @ into @ views.plane_from_image[name] @ centre,
                views.sizes[name],
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            ),
            OPTIONS.levels,
        )
        for name in views.sizes
    ]


@pytest.fixture
def tracks(views: PlanarViews) -> Tracks:
    """Points of the plane in every view that sees them, 0.7 px off per axis, linked by the exact warps."""
    rng = np.random.default_rng(5)
    points = rng.uniform((60, 30), (480, 330), (400, 2))
    ids, xy = [], []
    for name, size in views.sizes.items():
        places = transform(np.linalg.inv(views.plane_from_image[name]), points)
        seen = ((places > 25) & (places < np.array(size) - 25)).all(axis=1)
        ids.append(np.flatnonzero(seen))
        xy.append((places[seen] + rng.normal(0, 0.7, (seen.sum(), 2))).astype(np.float32))
    names, links = list(views.sizes), {}
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            _, first, second = np.intersect1d(ids[i], ids[j], return_indices=True)
            ways = warp_fields(views.read((names[i], names[j])))
            links[i, j] = Links.of(first, second, ways, (xy[i][first], xy[j][second]))
    return ids, xy, links


def disagreement(views: PlanarViews, ids: list[np.ndarray], xy: list[np.ndarray], chosen: list[np.ndarray]) -> float:
    """The median distance of a track's observations on the plane from their mean."""
    on_plane = [
        transform(views.plane_from_image[name], places[rows].astype(float))
        for name, places, rows in zip(views.sizes, xy, chosen, strict=True)
    ]
    track = np.concatenate([rows[kept] for rows, kept in zip(ids, chosen, strict=True)])
    points = np.concatenate(on_plane)
    count = np.bincount(track)
    mean = np.stack([np.bincount(track, points[:, axis]) / np.maximum(count, 1) for axis in (0, 1)], axis=1)
    return float(np.median(np.linalg.norm(points - mean[track], axis=1)[count[track] > 1]))


def same(one: RefinedTracks, other: RefinedTracks) -> bool:
    return all(
        np.array_equal(a, b)
        for first, second in ((one.xy, other.xy), (one.covariance, other.covariance), (one.quality, other.quality))
        for a, b in zip(first, second, strict=True)
    )


def test_observations_of_a_track_come_to_agree(views, photographs, tracks) -> None:
    ids, xy, links = tracks
    result = refine_tracks(xy, links.items(), photographs.__getitem__)
    refined = [quality > 0 for quality in result.quality]
    assert np.concatenate(refined).mean() > 0.6
    assert disagreement(views, ids, xy, refined) > 0.5
    assert disagreement(views, ids, result.xy, refined) < 0.08


def test_what_is_not_refined_keeps_its_place_and_a_wide_covariance(photographs, tracks) -> None:
    ids, xy, links = tracks
    result = refine_tracks(xy, links.items(), photographs.__getitem__, RefineOptions(seed_radius=0))
    for before, after, quality, covariance in zip(xy, result.xy, result.quality, result.covariance, strict=True):
        np.testing.assert_array_equal(after[quality == 0], before[quality == 0])
        np.testing.assert_array_equal(
            covariance[quality == 0], np.broadcast_to(np.eye(2), ((quality == 0).sum(), 2, 2))
        )
        assert np.median(np.trace(covariance[quality > 0], axis1=1, axis2=2)) < 0.1


def test_what_is_not_refined_is_as_sure_as_a_network_says(views, tracks) -> None:
    ids, xy, links = tracks
    names = list(views.sizes)

    def of_precision(i: int, j: int) -> Links:
        _, first, second = np.intersect1d(ids[i], ids[j], return_indices=True)
        record = views.read((names[i], names[j]))
        halves = {name: getattr(record, name) // 2 for name in ("weight_AB", "weight_BA")}
        ways = warp_fields(replace(record, **halves, precise=True))
        return Links.of(first, second, ways, (xy[i][first], xy[j][second]))

    result = refine_tracks(xy, [(edge, of_precision(*edge)) for edge in links], lambda image: None)
    # A weight of a half stands for 0.5 px at a long side of 1600, 0.15 at 480, over both axes.
    variances = np.concatenate(result.covariance)[:, [0, 1], [0, 1]]
    linked = variances[:, 0] < 1
    assert linked.mean() > 0.9
    assert np.median(np.sqrt(variances[linked])) == pytest.approx(0.15 / np.sqrt(2), rel=0.1)


def test_tracks_move_whole_to_where_they_can_be_refined(views, photographs, tracks) -> None:
    ids, xy, links = tracks
    moved = refine_tracks(xy, links.items(), photographs.__getitem__)
    refined = [quality > 0 for quality in moved.quality]
    assert np.concatenate(refined).mean() > 0.95
    everything = [np.ones(len(rows), bool) for rows in ids]
    assert disagreement(views, ids, moved.xy, everything) < disagreement(views, ids, xy, everything)
    shift = np.concatenate([np.linalg.norm(after - before, axis=1) for after, before in zip(moved.xy, xy, strict=True)])
    wide = np.concatenate([np.linalg.eigvalsh(covariance)[:, 0] for covariance in moved.covariance])
    unrefined = ~np.concatenate(refined)
    assert (wide[unrefined] >= 1).all()
    assert shift[unrefined].any()


def test_a_track_stays_where_one_of_its_views_may_not_follow(photographs, tracks) -> None:
    ids, xy, links = tracks

    def allows(image: int, places: np.ndarray) -> np.ndarray:
        return np.full(len(places), image != 1)

    free = refine_tracks(xy, links.items(), photographs.__getitem__)
    barred = refine_tracks(xy, links.items(), photographs.__getitem__, allows=allows)
    far = 2 * OPTIONS.reach_px
    for rows, before, moved, after in zip(ids, xy, free.xy, barred.xy, strict=True):
        shift, kept = (np.linalg.norm(places - before, axis=1) for places in (moved, after))
        seen = np.isin(rows, ids[1])
        assert (shift[seen] > far).any()
        assert (kept[seen] <= far).all()
    elsewhere = [np.linalg.norm(after - before, axis=1) for after, before in zip(barred.xy, xy, strict=True)]
    assert np.concatenate(elsewhere)[~np.isin(np.concatenate(ids), ids[1])].max() > far


def test_the_best_place_near_by_is_the_one_with_texture() -> None:
    blank = np.full((100, 100), 90, np.uint8)
    blank[48:53, 48:53] = 200
    places = np.array([[44.0, 46.0], [56.0, 52.0], [20.0, 20.0]])
    best = Photograph.prepare(blank, 1).best_near(places, 8)
    assert (np.linalg.norm(best[:2] - 50.5, axis=1) < 2.5).all()
    assert (np.linalg.norm(best - places, axis=1) < 9).all()


def test_order_of_pairs_and_threads_change_nothing(photographs, tracks) -> None:
    ids, xy, links = tracks
    straight = refine_tracks(xy, links.items(), photographs.__getitem__)
    reverse = refine_tracks(xy, reversed(links.items()), photographs.__getitem__, threads=3)
    assert same(straight, reverse)


def test_views_without_a_photograph_stay_and_the_others_are_refined(photographs, tracks) -> None:
    ids, xy, links = tracks
    result = refine_tracks(
        xy, links.items(), lambda image: None if image == 1 else photographs[image], RefineOptions(seed_radius=0)
    )
    np.testing.assert_array_equal(result.xy[1], xy[1])
    assert not result.quality[1].any()
    assert np.concatenate([result.quality[k] > 0 for k in (0, 2, 3)]).mean() > 0.5


def test_links_are_read_one_after_the_other_and_not_kept(photographs, tracks) -> None:
    _, xy, links = tracks
    read: list[weakref.ref[np.ndarray]] = []

    def stream() -> Iterator[tuple[tuple[int, int], Links]]:
        for edge, link in links.items():
            assert all(one() is None for one in read[:-1])
            yield edge, replace(link, affines=(affines := link.affines.copy()))
            read.append(weakref.ref(affines))
            del affines

    assert same(
        refine_tracks(xy, stream(), photographs.__getitem__), refine_tracks(xy, links.items(), photographs.__getitem__)
    )
    assert len(read) == len(links)


def test_nothing_comes_of_nothing() -> None:
    none = refine_tracks([np.zeros((0, 2), np.float32)], {}.items(), lambda image: None)
    assert [len(rows) for rows in none.xy] == [0]
    assert none.covariance[0].shape == (0, 2, 2)
