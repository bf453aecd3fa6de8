"""Every bad input gets a message that names it and an exit code, and leaves finished work unchanged."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.plane import photograph_plane
from typer.testing import CliRunner, Result

from romacli.cli.app import app

Run = Callable[..., Result]
QUICK = ["--coarse-resolution", "64", "--upsample-resolution", "128", "--no-refine"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    photograph_plane(tmp_path / "photos", ["1.png", "2.png", "3.png"])
    return tmp_path / "photos"


def test_no_such_folder(run: Run) -> None:
    result = run("match", "nowhere")
    assert result.exit_code == 3
    assert "nowhere" in result.stderr
    assert not Path("romacli-out").exists()


def test_folder_missing_from_the_command(run: Run) -> None:
    result = run("match")
    assert result.exit_code == 2
    assert "IMAGES is missing: give the folder of photographs." in result.stderr


def test_empty_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("match", "empty")
    assert result.exit_code == 3
    assert "empty" in result.stderr
    assert ".jpg" in result.stderr


def test_one_image(run: Run, photos: Path) -> None:
    for name in ("2.png", "3.png"):
        (photos / name).unlink()
    result = run("match", photos)
    assert result.exit_code == 3
    assert "contains one image (1.png); matching needs two or more" in result.stderr


def test_unreadable_image_is_named_and_the_rest_goes_on(run: Run, photos: Path) -> None:
    (photos / "2.png").write_bytes((photos / "2.png").read_bytes()[:2000])
    result = run("match", photos, *QUICK, "--min-overlap", 0, "--min-certainty", 0, "--json")
    assert result.exit_code == 4
    assert "1 photograph could not be used, leaving out 2 pairs" in result.stderr
    assert "2.png" in result.stderr
    values = json.loads(result.stdout)
    assert (values["pairs"], values["matched"], values["failed"]) == (3, 1, 2)


@pytest.mark.parametrize("command", [("match", "--dry-run"), ("pairs", "exhaustive")], ids=["match", "pairs"])
def test_files_that_are_left_out_are_named(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    photograph_plane(tmp_path / "scene" / "images", ["1.png", "2.png"])
    photograph_plane(tmp_path / "scene" / "images_2", ["1.png", "2.png"])
    for name in ("3.jxl", "notes.txt"):
        (tmp_path / "scene" / name).touch()
    result = run(*command, "scene")
    assert result.exit_code == 0
    assert "1 pair" in result.stdout + result.stderr or result.stdout == "images/1.png images/2.png\n"
    for first in ("1 file is left out", "2 files are left out", "with 3.jxl", "with images_2/1.png", "with notes.txt"):
        assert first in result.stderr
    listed = tmp_path / "list.txt"
    listed.write_text("images/1.png\nimages_2/1.png\n")
    assert "left out" not in run(*command, "scene", "--image-list", listed).stderr


def test_strict_stops_at_an_unreadable_image(run: Run, photos: Path) -> None:
    (photos / "2.png").write_bytes(b"")
    result = run("match", photos, *QUICK, "--strict")
    assert result.exit_code == 4
    assert "stopped by --strict" in result.stderr


def test_pair_naming_a_missing_image(run: Run, photos: Path) -> None:
    Path("pairs.txt").write_text("1.png 2.png\n1.png 9.png\n")
    result = run("match", photos, "--pairs", "pairs.txt")
    assert result.exit_code == 2
    assert "pairs.txt:2: 9.png" in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1.png\n", "pairs.txt:1: one name"),
        ("1.png 2.png\n1.png 2.png 3.png\n", "pairs.txt:2: the third column"),
        ("1.png 2.png 0.5 x\n", "pairs.txt:1: 4 columns"),
        ("# nothing\n\n", "pairs.txt contains no pairs"),
        ("1.png 1.png\n", "pairs.txt:1: 1.png is paired with itself"),
    ],
)
def test_pairs_file_that_breaks_the_grammar(run: Run, photos: Path, content: str, words: str) -> None:
    Path("pairs.txt").write_text(content)
    result = run("match", photos, "--pairs", "pairs.txt")
    assert result.exit_code == 2
    assert words in result.stderr


def test_names_that_collide_in_hloc_files(run: Run, tmp_path: Path) -> None:
    photograph_plane(tmp_path / "photos", ["a/b.png", "a-b.png"])
    result = run("match", "photos")
    assert result.exit_code == 2
    assert "a/b.png" in result.stderr
    assert "a-b.png" in result.stderr


def test_names_with_spaces_umlauts_and_folders_are_matched(run: Run, tmp_path: Path) -> None:
    names = ["Straße/erste Aufnahme.png", "Straße/zweite.png", "näher.png"]
    photograph_plane(tmp_path / "photos", names)
    lines = run("pairs", "exhaustive", "photos").stdout
    Path("pairs.txt").write_text(lines, encoding="utf-8")
    result = run("match", "photos", "--pairs", "pairs.txt", *QUICK, "--min-overlap", 0, "--min-certainty", 0)
    assert result.exit_code == 0, result.stderr
    assert Path("romacli-out/pairs.txt").read_text(encoding="utf-8") == lines


def test_output_of_other_settings_is_refused_and_named(run: Run, photos: Path) -> None:
    first = run("match", photos, *QUICK, "--min-overlap", 0, "--min-certainty", 0)
    assert first.exit_code == 0, first.stderr
    result = run("match", photos, "--coarse-resolution", 96, "--upsample-resolution", 128, "--min-overlap", 0)
    assert result.exit_code == 2
    assert "made with --coarse-resolution 64x64, this run asks for 96x96" in result.stderr
    assert "--overwrite" in result.stderr


def test_overwrite_begins_anew(run: Run, photos: Path) -> None:
    lenient = ("--min-overlap", 0, "--min-certainty", 0)
    run("match", photos, *QUICK, *lenient)
    result = run("match", photos, "--coarse-resolution", 96, "--no-upsample", *lenient, "--overwrite", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["encodes"] == 3


@pytest.mark.parametrize("precious", ["database.db", "sparse/0/notes.txt"])
def test_overwrite_removes_nothing_of_somebody_else(run: Run, photos: Path, precious: str) -> None:
    path = Path("job") / precious
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    Path("job/manifest.json").write_text("{}")
    result = run("match", photos, *QUICK, "-o", "job", "--overwrite")
    assert result.exit_code == 6
    assert "ove it away" in result.stderr
    assert path.read_text() == "precious"
    assert Path("job/manifest.json").exists()


@pytest.mark.parametrize("removed", ["features.h5", "matches.h5"])
def test_photograph_that_changed_its_size_is_refused(run: Run, photos: Path, removed: str) -> None:
    lenient = (*QUICK, "--min-overlap", 0, "--min-certainty", 0)
    assert run("match", photos, *lenient).exit_code == 0
    cv2.imwrite(str(photos / "2.png"), np.zeros((60, 80, 3), np.uint8))
    photograph_plane(photos, ["4.png"])
    (Path("romacli-out") / removed).unlink()
    result = run("match", photos, *lenient)
    assert result.exit_code == 3
    assert "2.png is 80x60 px, but was 320x240 when it was matched" in result.stderr


def test_unreadable_photograph_of_no_pair_is_named_too(run: Run, photos: Path) -> None:
    (photos / "3.png").write_bytes(b"no image")
    Path("pairs.txt").write_text("1.png 2.png\n")
    result = run("match", photos, "--pairs", "pairs.txt", *QUICK, "--min-overlap", 0, "--min-certainty", 0)
    assert result.exit_code == 0
    assert "warning: " in result.stderr
    assert "3.png cannot be read as an image" in result.stderr


def test_checkpoint_of_another_model(run: Run, photos: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"layer": np.zeros(3, np.float32)}, "other.safetensors")
    result = run("match", photos, "--weights", "other.safetensors")
    assert result.exit_code == 3
    assert "other.safetensors" in result.stderr


@pytest.mark.parametrize("weights", ["nowhere.safetensors", "photos"])
def test_weights_that_are_no_file(run: Run, photos: Path, weights: str) -> None:
    result = run("match", photos, "--weights", weights)
    assert result.exit_code == 3
    assert f"{weights} cannot be read as weights: " in result.stderr


def test_output_that_is_a_model_of_a_job(run: Run, photos: Path) -> None:
    Path("job/sparse/1").mkdir(parents=True)
    assert run("match", photos, *QUICK, "-o", "job").exit_code == 0
    result = run("match", photos, *QUICK, "-o", "job/sparse/1")
    assert result.exit_code == 2
    assert "job/sparse/1 is a model of the job job. Give -o job, or another --output." in result.stderr
    assert not list(Path("job/sparse/1").iterdir())


@pytest.mark.parametrize("output", ["taken", "taken/job"])
def test_output_that_is_a_file(run: Run, photos: Path, output: str) -> None:
    Path("taken").write_text("precious")
    result = run("match", photos, "-o", output)
    assert result.exit_code == 6
    assert f"{output} is not a folder. Give another one." in result.stderr
    assert Path("taken").read_text() == "precious"


def test_published_model_without_weights_says_where_they_go(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROMACLI_WEIGHTS_DIR", str(tmp_path / "weights"))
    result = run("match", photos, "--model", "roma-outdoor")
    assert result.exit_code == 3
    for words in ("roma_outdoor.pth", "romacli models download roma-outdoor", "https://", str(tmp_path / "weights")):
        assert words in result.stderr


def test_unknown_model_lists_the_known_ones(run: Run, photos: Path) -> None:
    result = run("match", photos, "--model", "loftr")
    assert result.exit_code == 2
    assert "loftr" in result.stderr
    assert all(name in result.stderr for name in ("mini", "roma-outdoor", "roma-indoor"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--coarse-resolution", "100"), "--coarse-resolution 100x100 must be a multiple of 16"),
        (("--coarse-resolution", "big"), "--coarse-resolution big is not a size"),
        (("--device", "quantum"), "--device quantum is not a device"),
        (("--device", "cuda:77"), "--device cuda:77 is not available"),
        (("--dtype", "int8"), "--dtype int8 is not known"),
    ],
)
def test_option_values_that_make_no_sense(run: Run, photos: Path, words: tuple[str, str], message: str) -> None:
    result = run("match", photos, *words)
    assert result.exit_code in (2, 3)
    assert message in result.stderr


def test_read_only_output(run: Run, photos: Path) -> None:
    if os.geteuid() == 0:
        output = Path("/proc/romacli-out")
    else:
        Path("locked").mkdir(mode=0o500)
        output = Path("locked/out")
    result = run("match", photos, *QUICK, "-o", output)
    assert result.exit_code == 6
    assert str(output) in result.stderr
    assert "cannot be written" in result.stderr


def test_full_disk(run: Run, photos: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        result = run("match", photos, *QUICK, "--min-overlap", 0, "--min-certainty", 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.exit_code == 6
    assert "the disk or quota is full" in result.stderr
    assert "Free more than" in result.stderr
    again = run("match", photos, *QUICK, "--min-overlap", 0, "--min-certainty", 0)
    assert again.exit_code == 0, again.stderr


def test_nothing_matches(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(2):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((120, 160, 3), 100 * index, np.uint8))
    result = run("match", folder, *QUICK, "--min-overlap", 0.5)
    assert result.exit_code == 5
    assert "none of 1 pair overlaps enough" in result.stderr


def test_underscores_and_the_words_of_peers_are_understood(run: Run, photos: Path) -> None:
    result = run("pairs", "exhaustive", "--image_path", photos, "--output_path", "p.txt")
    assert result.exit_code == 0, result.stderr
    assert len(Path("p.txt").read_text().splitlines()) == 3


def test_import_without_matches(run: Run, photos: Path) -> None:
    result = run("colmap-import", photos, "-o", "nothing")
    assert result.exit_code == 3
    assert "nothing contains no features.h5" in result.stderr


def test_foreign_database_is_left_alone(run: Run, photos: Path) -> None:
    assert run("match", photos, *QUICK, "--min-overlap", 0, "--min-certainty", 0).exit_code == 0
    Path("mine.db").write_bytes(b"precious")
    result = run("colmap-import", photos, "--database", "mine.db")
    assert result.exit_code == 6
    assert "mine.db exists and was not made by romacli" in result.stderr
    assert Path("mine.db").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--mapper-option", "init_max_eror=1"), 2, "Near it: mapper.init_max_error"),
        (("--mapper-option", "init_max_error=f()"), 2, "f() is no value"),
        (("--known-poses", "empty"), 3, "empty contains no COLMAP model"),
        (("--known-poses", "empty", "--mapper", "global"), 2, "leave out --mapper"),
        (("--known-poses", "empty", "--camera-params", "1,2,3,4"), 2, "leave out --camera-params"),
        (("--rig-config", "nowhere.json"), 3, "nowhere.json cannot be read"),
        (("--rig-config", "rig.json"), 3, "no photograph's name begins with left/"),
        (("--camera-params", "1,2,3"), 2, "SIMPLE_RADIAL takes"),
    ],
)
def test_what_the_mapper_cannot_do_is_said_before_matching(
    run: Run, photos: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    Path("empty").mkdir()
    Path("rig.json").write_text('[{"cameras": [{"image_prefix": "left/", "ref_sensor": true}]}]')
    result = run("reconstruct", photos, *QUICK, *words)
    assert result.exit_code == code
    assert message in result.stderr
    assert not Path("romacli-out").exists()


def test_an_option_of_another_pairing_is_refused(run: Run, photos: Path) -> None:
    result = run("match", photos, "--pairing", "sequential", "--reference-model", "sparse/0")
    assert result.exit_code == 2
    assert "--reference-model is an option of poses or covisible pairing, not of sequential" in result.stderr
    assert run("match", photos, "--overlap", "3", "--dry-run").exit_code == 2


def test_a_pairs_file_beside_a_pairing_is_refused(run: Run, photos: Path) -> None:
    result = run("match", photos, "--pairs", "pairs.txt", "--pairing", "sequential")
    assert result.exit_code == 2
    assert "--pairs pairs.txt and --pairing exclude each other" in result.stderr


def test_a_model_without_gps_cannot_be_georeferenced(run: Run, photos: Path) -> None:
    result = run("reconstruct", photos, "--georeference")
    assert result.exit_code == 3
    assert "0 of 3" in result.stderr
    result = run("reconstruct", photos, "--georeference", "--known-poses", "model")
    assert result.exit_code == 2
    assert "--known-poses keeps the given poses" in result.stderr
    assert not Path("romacli-out").exists()


def test_photographs_without_gps_stop_spatial_pairing_before_any_work(run: Run, photos: Path) -> None:
    result = run("match", photos, "--pairing", "spatial")
    assert result.exit_code == 3
    assert "3 of 3 photographs have no position" in result.stderr
    assert "1.png, 2.png, 3.png" in result.stderr
    assert not Path("romacli-out").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--seeded-weights", "--weights", "own.pth"), "--weights own.pth and --seeded-weights exclude each other."),
        (("--uncached-pairs", "3"), "has no effect without --compare uncached"),
        (("--seeded-weights", "--model", "dkm"), "model dkm is not known."),
    ],
)
def test_bench_that_contradicts_itself(run: Run, words: tuple[str, ...], sentence: str) -> None:
    result = run("bench", *words)
    assert result.exit_code == 2
    assert sentence in result.stderr
