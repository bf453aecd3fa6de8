"""Masked areas have no matches in either direction, whatever the keypoint method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.planar_views import NODES, views_along_plane

from romacli.geometry.warp import lie_in
from romacli.images.masks import kept_cells
from romacli.keypoints.aggregate import METHODS, derive
from romacli.keypoints.graph import PairGraph
from romacli.keypoints.options import AggregateOptions
from romacli.types import CompactWarp, Keypoints

SIZE = (800, 600)


class Listener:
    def begin(self, title: str, total: int) -> None: ...

    def advance(self, count: int = 1) -> None: ...


def mask(seed: int) -> np.ndarray:
    """Black bars and specks that are not aligned with any grid of cells; (H, W) bool."""
    rng = np.random.default_rng(seed)
    kept = np.ones(SIZE[::-1], bool)
    left, top = rng.integers(100, 500), rng.integers(100, 400)
    kept[:, left : left + 133] = False
    kept[top : top + 61, 300:] = False
    for x, y in rng.integers(0, 600, (20, 2)):
        kept[y : y + 2, x : x + 2] = False
    return kept


VIEWS = views_along_plane(4).with_errors(noise_px=1.0)
KEPT = {name: mask(seed) for seed, name in enumerate(VIEWS.sizes)}
KEPT[list(KEPT)[-1]] = None


def graph(*, with_masks: bool) -> PairGraph:
    def cells(name: str, shape: tuple[int, int]) -> np.ndarray | None:
        return None if KEPT[name] is None else kept_cells(KEPT[name], shape)

    return PairGraph(VIEWS.pairs, VIEWS.read, lambda: None, cells if with_masks else None)


def in_black(name: str, xy: np.ndarray) -> np.ndarray:
    if KEPT[name] is None:
        return np.zeros(len(xy), bool)
    x, y = np.clip(np.floor(xy).astype(int), 0, np.array(SIZE) - 1).T
    return ~KEPT[name][y, x]


@pytest.mark.parametrize("method", METHODS)
def test_no_keypoint_lies_in_black(method):
    options = AggregateOptions(method=method)
    whole, masked = (derive(graph(with_masks=some), options, progress=Listener()) for some in (False, True))
    assert all(in_black(name, whole.keypoints[name].xy).any() for name in KEPT if KEPT[name] is not None)
    for name, points in masked.keypoints.items():
        assert len(points) > 200
        assert not in_black(name, points.xy).any()
    assert all(len(matches) > 100 for _, matches in masked.matches())


def test_given_keypoints_stay_but_those_in_black_match_nothing():
    rng = np.random.default_rng(0)
    given = {}
    for name in KEPT:
        xy = rng.uniform((0, 0), SIZE, (3000, 2)).astype(np.float32)
        given[name] = Keypoints(xy, np.ones(len(xy), np.float32))
    found = derive(graph(with_masks=True), AggregateOptions(max_distance=12), anchors=given, progress=Listener())
    assert all(len(found.keypoints[name]) == 3000 for name in KEPT)
    matched = 0
    for pair, matches in found.matches():
        matched += len(matches)
        for side, name in enumerate(pair):
            assert not in_black(name, given[name].xy[matches.indices[:, side]]).any()
    assert matched > 1000


def test_overlap_counts_what_is_left():
    name_A, name_B = VIEWS.pairs[0]
    whole, masked = graph(with_masks=False), graph(with_masks=True)
    edge = whole.edges[0]
    lost = 1 - np.mean([kept_cells(KEPT[name], (NODES, NODES)).mean() for name in (name_A, name_B)])
    assert whole.overlap(edge) - masked.overlap(edge) > 0.5 * lost


def test_an_image_that_is_black_all_over_loses_its_pairs_alone():
    black = replace(VIEWS)
    names = list(black.sizes)
    cells = {names[0]: np.zeros((NODES, NODES), bool)}
    found = derive(
        PairGraph(black.pairs, black.read, lambda: None, lambda name, shape: cells.get(name)),
        AggregateOptions(),
        progress=Listener(),
    )
    assert len(found.keypoints[names[0]]) == 0
    assert len(found.keypoints[names[1]]) > 200


def test_points_on_the_borders_of_cells_and_images_have_a_cell():
    cells = np.zeros((3, 4), bool)
    cells[1, 2] = True
    points = np.array([[20, 10], [29.9, 19.9], [30, 15], [25, 20], [0, 0], [40, 30], [-5, 50]], np.float32)
    assert lie_in(cells, points, (40, 30)).tolist() == [True, True, False, False, False, False, False]


def test_grids_of_a_rotated_photograph_have_masks_of_their_own_shapes():
    grids = {"a": (4, 6), "b": (6, 4)}
    targets = {name: np.zeros((*shape, 2), np.uint16) for name, shape in grids.items()}
    weights = {name: np.full(shape, 255, np.uint8) for name, shape in grids.items()}
    record = CompactWarp(targets["a"], weights["a"], targets["b"], weights["b"], (60, 40), (40, 60), 1.0)
    seen = {}
    PairGraph(
        [("a", "b")], lambda _: record, lambda: None, lambda name, shape: seen.setdefault(name, np.ones(shape, bool))
    )
    assert {name: cells.shape for name, cells in seen.items()} == grids
