"""Pairs of walls that look alike except for a detail, detected from the warps of an overconfident matcher."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from support.commands import result_of, romacli
from support.small_job import plane_job
from support.small_scene import make_scene
from support.walls import GRID, POSTERS, SIZE, on_poster, place_of, same_wall, views_of, wall_of, warp

from romacli.colmap.reading import read_inliers
from romacli.errors import InputError, NothingFoundError
from romacli.filter.judge import Verdict, judge_pairs
from romacli.filter.lattice import Edge, Lattice, Views
from romacli.filter.missing import Missing, count_witnesses, find_missing
from romacli.filter.unique import measure_unique
from romacli.filter.verified import ReadInliers
from romacli.geometry.warp import cell_centres, masked
from romacli.job.options import ImportOptions
from romacli.job.outputs.database import import_matches
from romacli.job.outputs.filter import (
    Dropped,
    FilterSummary,
    filter_for_mapper,
    filter_pairs,
    make_filtered_model,
    noted_filter,
)
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import reconstruct
from romacli.pairs.listfile import write_pairs
from romacli.progress import Silent
from romacli.report.thumbnails import tinted
from romacli.stop import StopRequest
from romacli.store.journal import JournalWriter
from romacli.store.layout import Layout
from romacli.store.manifest import fingerprint, read_manifest, write_manifest
from romacli.types import CompactWarp, Correspondences, Manifest, Pair, PairList


class Told(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def test_a_hole_that_both_images_match_with_others_is_missing() -> None:
    views = views_of()
    witnesses = count_witnesses(views)
    shares = {views.pair_of(edge): find_missing(views, edge, witnesses).share for edge in views.edges}
    assert max(share for pair, share in shares.items() if same_wall(pair)) == 0
    assert shares["back/2", "front/2"] > 0.1
    holes = find_missing(views, views.edges[[*shares].index(("back/2", "front/2"))], witnesses).holes
    lattice = Lattice.over(SIZE)
    points = lattice.places() * (SIZE[0] / lattice.columns) + (place_of("back/2"), 0)
    assert on_poster(points[holes[0]], POSTERS).mean() > 0.7  # except for cells at the edge


def test_a_detail_that_many_pairs_miss_speaks_for_those_that_match_it() -> None:
    views = views_of()
    witnesses = count_witnesses(views)
    found = {edge: find_missing(views, edge, witnesses) for edge in views.edges}
    unique = measure_unique(views, found, [edge for edge in views.edges if not same_wall(views.pair_of(edge))])
    of = dict(zip(map(views.pair_of, views.edges), unique, strict=True))
    assert of["front/2", "front/3"] > 20
    assert max(count for pair, count in of.items() if not same_wall(pair)) < of["front/2", "front/3"] / 2  # at edges
    assert not measure_unique(views, found, []).any()


def test_pairs_of_walls_that_look_alike_are_dropped_and_all_others_kept() -> None:
    views = views_of()
    judged = {views.pair_of(edge): one for edge, one in judge_pairs(views).pairs.items()}
    assert {pair for pair, one in judged.items() if one.is_kept} == {pair for pair in judged if same_wall(pair)}
    assert "should match" in judged["back/2", "front/2"].reason
    assert judge_pairs(views).disputed == 0


def test_a_pair_that_shows_no_detail_falls_with_those_that_do() -> None:
    views = views_of(count=8)
    judged = {views.pair_of(edge): one for edge, one in judge_pairs(views).pairs.items()}
    assert judged["back/0", "front/7"].share == 0  # so nothing speaks against it on its own
    assert not judged["back/0", "front/7"].is_kept
    assert "tells them apart" in judged["back/0", "front/7"].reason


def test_a_pair_that_misses_much_is_dropped_among_others_that_are_believed() -> None:
    lacking = ("front/1", "front/2")

    def read(pair: Pair) -> CompactWarp:
        if pair != lacking:
            return warp(pair)
        kept = (~on_poster(cell_centres(GRID, SIZE) + (place_of(name), 0), POSTERS) for name in pair)
        return masked(warp(pair), *kept)

    names = [f"{wall}/{k}" for wall in ("back", "front") for k in range(6)]
    views = Views(combinations(names, 2), read)
    judged = {views.pair_of(edge): one for edge, one in judge_pairs(views).pairs.items()}
    assert {pair for pair, one in judged.items() if one.is_kept} == {pair for pair in judged if same_wall(pair)} - {
        lacking
    }


@pytest.mark.parametrize("walls", [("front",), ("front", "back")])
def test_where_nothing_is_missing_nothing_is_dropped(walls: tuple[str, ...]) -> None:
    judged = judge_pairs(views_of(walls, has_posters=False)).pairs
    assert all(one.is_kept for one in judged.values())


@pytest.mark.parametrize(("detailed", "contradicting", "drops"), [(14, 0, False), (60, 0, True), (14, 20, True)])
def test_few_details_among_many_pairs_are_chance_unless_triangles_contradict(
    monkeypatch: pytest.MonkeyPatch, detailed: int, contradicting: int, drops: bool
) -> None:
    views = views_of(("front",), count=24)
    rng = np.random.default_rng(0)
    doubted = set(rng.choice(len(views.edges), 80, replace=False).tolist())
    sure = [k for k in range(len(views.edges)) if k not in doubted]
    unique = np.zeros(len(views.edges))
    unique[rng.choice(sure, detailed, replace=False)] = 60
    nothing = np.zeros(views.lattices[0].count, bool)
    missing = {
        edge: Missing(120 if k in doubted else 0, 500, (nothing, nothing), True) for k, edge in enumerate(views.edges)
    }
    triangles = [(i, i + 1, i + 2) for i in range(22)] + [(i, i + 2, i + 4) for i in range(20)]
    agreement = {triangle: 0.1 if k < contradicting else 0.9 for k, triangle in enumerate(sorted(triangles))}
    monkeypatch.setattr("romacli.filter.judge.find_missing", lambda views, edge, witnesses: missing[edge])
    monkeypatch.setattr("romacli.filter.judge.without_bridged", lambda views, edge, one: one)
    monkeypatch.setattr("romacli.filter.judge.measure_unique", lambda *_: unique)
    monkeypatch.setattr("romacli.filter.judge.measure_agreement", lambda _: agreement)
    kept = [one.is_kept for one in judge_pairs(views).pairs.values()]
    assert (not all(kept)) == drops


def test_masked_details_say_nothing() -> None:
    def read(pair: Pair) -> CompactWarp:
        points = cell_centres(GRID, SIZE)
        return masked(warp(pair), *(~on_poster(points + (place_of(name), 0), POSTERS) for name in pair))

    names = [f"{wall}/{k}" for wall in ("back", "front") for k in range(6)]
    views = Views(combinations(names, 2), read)
    assert all(one.is_kept for one in judge_pairs(views).pairs.values())


def test_images_apart_from_those_that_look_alike_keep_their_pairs() -> None:
    names = [f"{wall}/{k}" for wall in ("back", "front", "tower") for k in range(6)]
    pairs = [pair for pair in combinations(names, 2) if same_wall(pair) or "tower" not in map(wall_of, pair)]
    views = Views(pairs, warp)
    judged = {views.pair_of(edge): one for edge, one in judge_pairs(views).pairs.items()}
    assert {pair for pair, one in judged.items() if one.is_kept} == {pair for pair in judged if same_wall(pair)}


def test_a_view_without_details_does_not_join_walls_that_look_alike() -> None:
    names = [f"{wall}/{k}" for wall in ("back", "front") for k in range(6)]
    views = Views([*combinations(names, 2), *((f"{wall}/5", "front/10.5") for wall in ("back", "front"))], warp)
    kept = {views.pair_of(edge) for edge, one in judge_pairs(views).pairs.items() if one.is_kept}
    assert ("front/4", "front/5") in kept
    assert ("back/5", "front/10.5") not in kept


def test_two_images_are_kept() -> None:
    assert all(one.is_kept for one in judge_pairs(views_of(("front",), 2)).pairs.values())


def test_warps_round_three_images_that_end_elsewhere_are_disputed() -> None:
    def read(pair: Pair) -> CompactWarp:
        return warp(("front/0", "front/3") if pair == ("front/0", "front/2") else pair)

    pairs = [(f"front/{i}", f"front/{j}") for i, j in combinations(range(3), 2)]
    views = Views(pairs, read)
    verdict = judge_pairs(views)
    assert verdict.disputed == 1
    assert all(one.is_kept for one in verdict.pairs.values())  # as nothing says which is wrong


def test_warnings_name_groups_images_and_what_cannot_be_told() -> None:
    dropped = (Dropped("a", "b", 0.1, "why"),)
    found = FilterSummary(9, dropped, (8,), (4, 3), ("z.jpg",), 0.2)
    assert found.without == {("a", "b")}
    assert [any(word in told for told in found.warnings) for word in ("2 groups", "z.jpg", "look alike and nothing")]
    assert not FilterSummary(9, (), (8,), (8,), (), 0.0).warnings


def test_a_job_is_filtered_once_and_keeps_what_was_found(tmp_path: Path) -> None:
    layout, photographs = plane_job(tmp_path)
    found = filter_pairs(layout, Silent(), StopRequest())
    assert (found.pairs, found.dropped, found.groups, found.photographs) == (6, (), (4,), 4)
    assert noted_filter(read_manifest(layout.manifest)) == found
    for path in photographs.root.rglob("*.png"):  # which are not needed
        path.unlink()
    run = romacli("filter", layout.root, "--json")
    assert result_of(run)["pairs"] == 6
    assert "to do" not in run.stderr


def test_pairs_are_judged_again_once_they_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, photographs = plane_job(tmp_path)
    seen = []

    def spy(views: Views, advance: Callable[[], None], read_inliers: ReadInliers) -> Verdict:
        seen.append(sum(read_inliers(views.pair_of(edge)) is not None for edge in views.edges))
        return judge_pairs(views, advance, read_inliers)

    monkeypatch.setattr("romacli.job.outputs.filter.judge_pairs", spy)
    filter_pairs(layout, Silent(), StopRequest(), database=layout.database)
    import_matches(photographs.root, layout, ImportOptions(), Silent(), StopRequest())
    for _ in range(2):
        filter_pairs(layout, Silent(), StopRequest(), database=layout.database)
    assert seen == [0, 6]


def test_matches_that_are_contradicted_are_withheld_from_the_mapper_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, photographs = plane_job(tmp_path)
    import_matches(photographs.root, layout, ImportOptions(), Silent(), StopRequest())
    inliers, told = read_inliers(layout.database), Told()
    pair, other = sorted(inliers)[:2]
    found = FilterSummary(6, (Dropped(*other, 0.1, "why"),), (4,), (4,), (), 0.0, withheld=((*pair, 3),))
    is_withheld = np.arange(inliers[pair]) < 3
    seen = {}

    def contradict(views: Views, kept: list[Edge], edges: list[Edge], read: ReadInliers) -> dict[Edge, np.ndarray]:
        assert other not in map(views.pair_of, kept)
        assert [views.pair_of(edge) for edge in edges] == [pair]
        return {edges[0]: is_withheld}

    monkeypatch.setattr("romacli.job.outputs.filter.find_contradicted_matches", contradict)
    monkeypatch.setattr(
        "romacli.job.outputs.filter.make_model",
        lambda *_, without, contradicted: seen.update(without=without, withheld=contradicted()),
    )
    make_filtered_model(photographs.root, layout, layout.database, MapperOptions(), found, told, StopRequest())
    assert seen == {"without": {other}, "withheld": {pair: is_withheld}}
    assert told.said == ["3 matches withheld from the mapper, as third images contradict them"]


def test_matches_of_keypoints_are_mapped_unfiltered_and_it_is_said(tmp_path: Path) -> None:
    layout, manifest, told = Layout(tmp_path / "job"), Manifest({"model": "points", "seed": 0}, "0"), Told()
    layout.root.mkdir()
    write_manifest(layout.manifest, manifest)
    write_pairs(layout.pairs, PairList((("a", "b"),)))
    points = np.zeros((9, 2), np.float32)
    with JournalWriter(layout.journal, fingerprint(manifest)) as journal:
        journal.append([(("a", "b"), Correspondences(points, points, np.ones(9, np.float32)))])
    assert filter_for_mapper(layout, layout.database, told, StopRequest()) is None
    assert "keypoints" in told.said[0]
    assert "models list" in told.said[0]


def test_a_folder_without_a_job_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no job.*romacli match"):
        filter_pairs(Layout(tmp_path), Silent(), StopRequest())


def test_the_mapper_never_sees_pairs_that_are_dropped(tmp_path: Path) -> None:
    scene, database = make_scene(6), tmp_path / "a.db"
    scene.write(database)
    before = database.read_bytes()
    options = MapperOptions(refine_intrinsics=False, num_threads=1)
    names = sorted(scene.poses)
    lost = {(min(names[0], name), max(names[0], name)) for name in names[1:]}
    summary = reconstruct(database, tmp_path, tmp_path / "sparse", options, without=lost)
    assert summary.registered == 5
    assert database.read_bytes() == before
    inliers = read_inliers(database)
    none = {pair: np.ones(inliers[pair], bool) for pair in lost & inliers.keys()}
    assert reconstruct(database, tmp_path, tmp_path / "sparse", options, contradicted=none).registered == 5
    assert database.read_bytes() == before
    with pytest.raises(NothingFoundError, match=r"look alike.*--no-filter"):
        reconstruct(database, tmp_path, tmp_path / "sparse", options, without=set(combinations(names, 2)))


def test_a_report_shows_in_red_what_a_pair_misses() -> None:
    matched, missing = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    matched[0, 0], missing[1, 3] = True, True
    picture = tinted(np.full((40, 80, 3), 100, np.uint8), matched, missing).astype(int)
    assert picture[5, 5].argmax() == 1
    assert picture[35, 75].argmax() == 0
    assert (picture[35, 5] == 100).all()
