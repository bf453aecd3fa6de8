"""Points of one photograph found in others."""

from __future__ import annotations

import csv
import re
import resource
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support.commands import result_of, romacli
from typer.testing import CliRunner

from romacli.cli.app import app
from romacli.errors import InputError, UsageError
from romacli.follow import Finder, frames, read_points, transfer
from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import load_matcher, load_seeded

SIZE = (320, 240)
POINTS = np.array([[100.0, 120.0], [200.5, 90.0], [160.0, 170.0]])
SHIFT = np.array([32.0, -16.0])


def picture(shift: tuple[float, float] = (0, 0)) -> np.ndarray:
    rng = np.random.default_rng(3)
    whole = sum(
        cv2.resize(rng.uniform(0, 255, (side, side, 3)), (480, 400), interpolation=cv2.INTER_CUBIC) for side in (6, 40)
    )
    matrix = np.float64([[1, 0, shift[0] - 80], [0, 1, shift[1] - 80]])
    return cv2.warpAffine(np.clip(whole / 2, 0, 255).astype(np.uint8), matrix, SIZE)


@pytest.mark.parametrize("model", ["mini-sparse", "mini"])
def test_points_are_found_where_the_picture_moved(model: str) -> None:
    finder = Finder(load_matcher(model, MatcherOptions(device="cpu")), semantic=False)
    found = finder.find(finder.view(picture()), finder.view(picture(tuple(SHIFT))), POINTS)
    assert np.abs(found.xy - POINTS - SHIFT).max() < 3
    assert found.visible.all()
    assert (found.scores > 0.3).all()


def test_points_that_left_are_not_visible() -> None:
    finder = Finder(load_matcher("mini-sparse", MatcherOptions(device="cpu")), semantic=False)
    found = finder.find(finder.view(picture()), finder.view(picture((170, 0))), POINTS)
    assert found.visible.tolist() == [True, False, False]


def test_points_of_a_turned_photograph_are_those_of_the_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(np.rot90(picture())).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(picture(tuple(SHIFT))).save(tmp_path / "b.png")
    stored = np.stack([POINTS[:, 1], SIZE[0] - POINTS[:, 0]], axis=1)
    matcher = load_matcher("mini-sparse", MatcherOptions(device="cpu"))
    there = transfer(matcher, tmp_path / "a.png", tmp_path / "b.png", stored)
    assert np.abs(there.xy - POINTS - SHIFT).max() < 3
    back = transfer(matcher, tmp_path / "b.png", tmp_path / "a.png", POINTS + SHIFT)
    assert np.abs(back.xy - stored).max() < 3


def test_turned_frames_are_followed_and_files_left_out_are_named(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    folder, points, table = tmp_path / "frames", tmp_path / "points.csv", tmp_path / "tracks.csv"
    folder.mkdir()
    np.savetxt(points, np.stack([POINTS[:, 1], SIZE[0] - POINTS[:, 0]], axis=1), delimiter=",")
    Image.fromarray(np.rot90(picture())).save(folder / "0.png", exif=exif)
    Image.fromarray(picture(tuple(SHIFT))).save(folder / "1.png")
    (folder / "2.jxl").touch()
    words = ("track", folder, "--points", points, "--model", "mini-sparse", "--device", "cpu", "-o", table)
    run = romacli(*words, "--overlay", tmp_path / "drawn")
    assert run.returncode == 0, run.stderr
    assert "1 file is left out, starting with 2.jxl" in run.stderr
    rows = list(csv.DictReader(table.read_text().splitlines()))
    found = np.array([[float(row["x"]), float(row["y"])] for row in rows]).reshape(2, -1, 2)
    assert np.abs(found[0] - np.loadtxt(points, delimiter=",")).max() < 3
    assert np.abs(found[1] - POINTS - SHIFT).max() < 3
    assert cv2.imread(str(tmp_path / "drawn" / "000000.jpg")).shape[:2] == SIZE[::-1]


def test_points_outside_and_matchers_without_a_say_are_refused() -> None:
    finder = Finder(load_matcher("mini-sparse", MatcherOptions(device="cpu")), semantic=True)
    view = finder.view(picture())
    with pytest.raises(InputError, match="point 2 at 321 5 lies outside .* 320x240"):
        finder.find(view, view, np.array([[1.0, 1], [321, 5]]))
    with pytest.raises(UsageError, match="xfeat only describes its own keypoints"):
        Finder(load_seeded("xfeat", MatcherOptions(device="cpu")), semantic=True)


def test_lists_of_points_are_read_and_others_named(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text("x,y\n1.5, 2\n# a comment\n3 4 5\n")
    np.testing.assert_array_equal(read_points(file), [[1.5, 2], [3, 4]])
    file.write_text("\ufeff1.5, 2\n", encoding="utf-8")  # as Windows' editors save
    np.testing.assert_array_equal(read_points(file), [[1.5, 2]])
    for text, words in (("x,y\n", "contains no points"), ("1,2\n3\n", "line 2"), ("1,2\nnan,3\n", "line 2")):
        file.write_text(text)
        with pytest.raises(InputError, match=words):
            read_points(file)
    with pytest.raises(InputError, match="cannot be read.*: No such file or directory"):
        read_points(tmp_path / "none.csv")


def test_a_film_that_does_not_decode_is_named(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"no film" * 100)
    with pytest.raises(InputError, match=r"film\.mp4 cannot be decoded"):
        list(frames(tmp_path / "film.mp4"))
    with pytest.raises(InputError, match="does not exist"):
        list(frames(tmp_path / "none.mp4"))


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("-o", "."), 6, "cannot be written: .* another --output"),
        (("-o", "t.csv", "--overlay", "points"), 6, "cannot be written: .* another --overlay"),
        (("-o", "t.csv", "--overlay", "drawn.avi"), 2, r"drawn\.avi ends in \.avi, .* \.mp4"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_frames_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("points").write_text("1 2\n")
    run = romacli("track", "no-film.mp4", "--points", "points", "--model", "mini-sparse", *words)
    assert run.returncode == code
    assert re.search(told, run.stderr)
    assert not Path("drawn.avi").exists()


def test_frames_that_cannot_be_read_are_told_and_the_others_are_kept(tmp_path: Path) -> None:
    folder, points, table = tmp_path / "frames", tmp_path / "points.csv", tmp_path / "tracks.csv"
    folder.mkdir()
    np.savetxt(points, POINTS, delimiter=",")
    for frame in range(3):
        Image.fromarray(picture(tuple(frame * SHIFT / 2))).save(folder / f"{frame}.png")
    (folder / "1.png").write_bytes(b"no picture")
    words = ("track", folder, "--points", points, "--model", "mini-sparse", "--device", "cpu", "-o", table)
    run = romacli(*words)
    assert run.returncode == 4
    assert "1 frame could not be read" in run.stderr
    assert "1.png" in run.stderr
    assert {row["frame"] for row in csv.DictReader(table.read_text().splitlines())} == {"0", "2"}
    table.unlink()
    (folder / "0.png").write_bytes(b"no picture")
    assert romacli(*words).returncode == 3
    assert not table.exists()


def test_tracks_are_kept_where_the_video_has_no_room(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "points.csv", POINTS, delimiter=",")
    (tmp_path / "frames").mkdir()
    Image.fromarray(picture()).save(tmp_path / "frames" / "0.png")
    words = ("track", tmp_path / "frames", "--points", tmp_path / "points.csv", "--model", "mini-sparse")
    words += ("--device", "cpu", "-o", tmp_path / "t.csv", "--overlay", tmp_path / "drawn.mp4")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    try:
        run = CliRunner().invoke(app, [str(word) for word in words])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert run.exit_code == 6
    assert re.search(r"drawn\.mp4 cannot be written: .*full.* another --overlay", run.stderr)
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 1 + len(POINTS)


def test_the_commands_write_tables_and_draw(tmp_path: Path) -> None:
    folder, points = tmp_path / "frames", tmp_path / "points.csv"
    folder.mkdir()
    np.savetxt(points, POINTS, delimiter=",")
    for frame in range(3):
        Image.fromarray(picture(tuple(frame * SHIFT / 2))).save(folder / f"{frame}.png")
    words = ("--points", points, "--model", "mini-sparse", "--device", "cpu", "-o", tmp_path / "tracks.csv", "--json")
    told = result_of(romacli("track", folder, *words, "--overlay", tmp_path / "drawn.mp4"))
    assert (told["frames"], told["points"], told["visible"]) == (3, 3, 9)
    table = list(csv.DictReader((tmp_path / "tracks.csv").read_text().splitlines()))
    last = [[float(row["x"]), float(row["y"])] for row in table if row["frame"] == "2"]
    assert np.abs(last - POINTS - SHIFT).max() < 3
    assert len(list(frames(tmp_path / "drawn.mp4"))) == 3
    told = result_of(romacli("track", tmp_path / "drawn.mp4", *words, "--overlay", tmp_path / "drawn"))
    assert told["frames"] == 3
    assert len(list((tmp_path / "drawn").glob("*.jpg"))) == 3
    run = romacli("transfer", folder / "0.png", folder / "2.png", "--points", points, "--model", "mini-sparse")
    assert run.stdout.startswith("frame,point,x,y,score,visible")
    assert len(run.stdout.splitlines()) == 4
