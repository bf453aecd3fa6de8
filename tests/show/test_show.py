"""The image of a pair: the stored warp, the matches, and what is missing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.plane import PlanePhotographs
from support.small_job import NAMES, plane_job
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.errors import InputError
from romacli.geometry.warp import cell_centres
from romacli.show.picture import _Panel, draw, moved, write_figure
from romacli.show.view import PairView, inliers_of, view_in_job, view_of_match
from romacli.store.layout import Layout
from romacli.store.localized import QueryPoints, write_localized, write_points
from romacli.two_view import match_two
from romacli.types import Correspondences

pytest.importorskip("matplotlib")
PAIR = (NAMES[0], NAMES[1])


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, PlanePhotographs]:
    return plane_job(tmp_path_factory.mktemp("show"))


def show(*words: object) -> Result:
    return CliRunner().invoke(app, ["show", *map(str, words)])


def through(photographs: PlanePhotographs, xy: np.ndarray, pair: tuple[str, str]) -> np.ndarray:
    """The true positions in the second image of points in the first."""
    matrix = np.linalg.inv(photographs.plane_from_image[pair[1]]) @ photographs.plane_from_image[pair[0]]
    return cv2.perspectiveTransform(xy[None].astype(np.float64), matrix)[0]


def test_the_view_has_the_stored_warp_and_matches(job: tuple[Layout, PlanePhotographs]) -> None:
    layout, photographs = job
    for pair in (PAIR, PAIR[::-1]):
        view = view_in_job(layout, pair)
        assert view.warps is not None
        warp = view.warps[0]
        size = view.images[0].shape[1], view.images[0].shape[0]
        centres = cell_centres(warp.certainty.shape, size)[warp.certainty > 0]
        true = through(photographs, centres, pair)
        assert len(centres) > 1000
        np.testing.assert_allclose(warp.targets[warp.certainty > 0], true, atol=0.5)
        assert len(view.matches) > 100
        np.testing.assert_allclose(
            through(photographs, view.matches.keypoints0, pair), view.matches.keypoints1, atol=1.0
        )


def test_a_moved_photograph_covers_the_other(job: tuple[Layout, PlanePhotographs]) -> None:
    view = view_in_job(job[0], PAIR)
    assert view.warps is not None
    one, other = map(_Panel.of, view.images)
    picture = moved(view.warps[0], other, size=one.size).astype(float)
    inside = cv2.resize(view.warps[0].opacity, one.size, interpolation=cv2.INTER_LINEAR) > 0.99
    assert inside.mean() > 0.3
    moved_error = np.abs(picture - one.picture)[inside].mean()
    assert moved_error < np.abs(one.picture.astype(float) - other.picture)[inside].mean() / 3
    assert (picture[cv2.dilate(inside.astype(np.uint8), np.ones((21, 21))) == 0] > 200).all()


def test_a_pair_matched_now_has_the_same_warp(job: tuple[Layout, PlanePhotographs]) -> None:
    _, photographs = job
    match = match_two(photographs.root / PAIR[0], photographs.root / PAIR[1], photographs.matcher)
    view = view_of_match(PAIR, match)
    np.testing.assert_allclose(through(photographs, view.matches.keypoints0, PAIR), view.matches.keypoints1, atol=0.5)
    assert not match.is_rejected
    assert len(view.matches) > 500


def test_inliers_leave_wrong_matches_out() -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 300, (200, 2)).astype(np.float32)
    depth = rng.uniform(20, 60, (200, 1)).astype(np.float32)
    moved_places = places + depth * np.array([[1, 0]], np.float32)
    moved_places[:50] = rng.uniform(0, 300, (50, 2))
    blank = np.zeros((300, 300, 3), np.uint8)
    view = PairView(PAIR, (blank, blank), None, Correspondences(places, moved_places, np.ones(200)), "score", "points")
    kept = inliers_of(view)
    assert 145 <= len(kept.matches) <= 160
    assert f"{len(kept.matches)} of 200 matches are inliers" in kept.note


def test_parts_have_their_rows(job: tuple[Layout, PlanePhotographs]) -> None:
    view = view_in_job(job[0], PAIR)
    pictures = {parts: draw(view, parts=parts) for parts in (("matches",), ("warp",))}
    # Two photographs side by side, then the colour bar.
    assert [len(figure.axes) for figure in pictures.values()] == [2, 3]
    whole = draw(view, num_lines=40)
    lines = [
        collection for axes in whole.axes for collection in axes.collections if hasattr(collection, "get_segments")
    ]
    assert len(lines[0].get_segments()) == 40
    assert len(whole.axes) == 4


def test_the_command_draws_what_the_job_holds(job: tuple[Layout, PlanePhotographs], tmp_path: Path) -> None:
    layout, photographs = job
    for name, words in {"all.png": (), "bild ü.jpg": ("--matches", "--inliers"), "warp.svg": ("--warp",)}.items():
        paths = photographs.root / PAIR[0], "2.png"
        result = show(*paths, layout.root, "-o", tmp_path / name, "--json", *words)
        assert result.exit_code == 0, result.stderr
        values = json.loads(result.stdout)
        assert values["pair"] == list(PAIR)
        assert (values["inliers"] is None) == ("--inliers" not in words)
        assert (tmp_path / name).stat().st_size > 10_000
    into_a_folder = show(*PAIR, layout.root, "-o", tmp_path, "--json", "--matches", "--max-lines", 1)
    assert into_a_folder.exit_code == 0, into_a_folder.stderr
    assert json.loads(into_a_folder.stdout)["picture"] == str(tmp_path / "pair.png")


def test_the_command_matches_two_files_now(job: tuple[Layout, PlanePhotographs], tmp_path: Path) -> None:
    root = job[1].root
    result = show(root / PAIR[0], root / PAIR[1], "-o", tmp_path / "now.png", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert cv2.imread(str(tmp_path / "now.png")).shape[1] == 1800


def test_what_is_missing_is_said(job: tuple[Layout, PlanePhotographs], tmp_path: Path) -> None:
    layout, photographs = job
    assert f"did you mean {NAMES[3]}" in show("C.png", NAMES[0], layout.root).stderr
    assert "no job" in show(*PAIR, tmp_path).stderr
    assert "has an unsupported format" in show(*PAIR, layout.root, "-o", tmp_path / "pair.txt").stderr
    gone = show(*PAIR, layout.root, "--images", tmp_path / "elsewhere")
    assert gone.exit_code == InputError.exit_code
    assert "elsewhere" in gone.stderr
    half = Layout(tmp_path / "half")
    shutil.copytree(layout.root, half.root)
    shutil.rmtree(half.journal)
    assert "contains no match of" in show(*PAIR, half.root).stderr
    for file in (half.features, half.matches):
        file.unlink()
    shutil.copytree(layout.journal, half.journal)
    view = view_in_job(half, PAIR)
    assert "no keypoints yet" in view.note
    np.testing.assert_allclose(through(photographs, view.matches.keypoints0, PAIR), view.matches.keypoints1, atol=1.0)


def test_photographs_that_moved_are_asked_for(job: tuple[Layout, PlanePhotographs], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks .*--images DIR"):
        view_in_job(job[0], PAIR, tmp_path)


def test_a_picture_of_no_matches_is_drawn(tmp_path: Path) -> None:
    none = Correspondences(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    images = np.zeros((20, 900, 3), np.uint8), np.zeros((700, 30, 3), np.uint8)
    view = PairView(("$a_1$.png", "x" * 200), images, None, none, "weight", "rejected, overlap 0.001")
    write_figure(draw(view), tmp_path / "none.png")
    assert (tmp_path / "none.png").exists()


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    blank = np.zeros((30, 30, 3), np.uint8)
    none = Correspondences(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
    with pytest.raises(InputError, match=r"pip install 'romacli\[report\]'"):
        draw(PairView(PAIR, (blank, blank), None, none, "weight", ""))


def test_a_query_is_drawn_with_its_points(tmp_path: Path) -> None:
    folder, photograph = tmp_path / "localized", tmp_path / "a" / "query.png"
    photograph.parent.mkdir()
    cv2.imwrite(str(photograph), np.full((120, 160, 3), 90, np.uint8))
    places = np.array([[20.0, 30], [50, 60], [120, 90]])
    points = QueryPoints(np.arange(3), places, places + [[0, 0.5], [0.3, 0], [30, 0]], np.array([True, True, False]))
    write_points(folder, "a/query.png", points)
    row = {"name": "a/query.png", "points": 3, "map_images": ["1.jpg"], "photograph": str(photograph)}
    write_localized(folder, [row, {"name": "b.png", "points": 0, "why": "it overlaps nothing"}])
    pictures = []
    for number, words in enumerate(([], ["--inliers"])):
        result = show("query", folder, "-o", tmp_path / f"{number}.png", "--json", *words)
        assert result.exit_code == 0, result.stderr
        values = json.loads(result.stdout)
        assert (values["query"], values["points"], values["inliers"]) == ("a/query.png", 3, 2)
        pictures.append(cv2.imread(str(tmp_path / f"{number}.png")).astype(int))
    red = [(picture[..., 2] - picture[..., 1] > 120).sum() for picture in pictures]
    assert red[0] > 100 > red[1] == 0
    assert "it overlaps nothing" in show("b.png", folder).stderr
    assert "has no image" in show("quary.png", folder).stderr
    assert show("query", folder, "--warp").exit_code == 2
    assert "contains no localized.json" in show("query", tmp_path).stderr
