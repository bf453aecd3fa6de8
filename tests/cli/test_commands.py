from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.plane import photograph_plane
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.images.options import ImageOptions
from romacli.job.options import JobOptions
from romacli.matchers.options import MatcherChoice, MatcherOptions
from romacli.pairing.options import PairingOptions

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in a folder with six photographs in `photos`."""
    monkeypatch.chdir(tmp_path)
    photograph_plane(tmp_path / "photos", [f"{number}.png" for number in (1, 2, 3, 9, 10, 11)])
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_version(run: Run) -> None:
    from romacli import __version__

    assert run("--version").stdout == f"romacli {__version__}\n"


def test_exhaustive_pairs_go_to_standard_output(run: Run) -> None:
    lines = run("pairs", "exhaustive", "photos").stdout.splitlines()
    assert len(lines) == 15
    assert lines[0] == "1.png 2.png"


def test_sequential_pairs_read_numbers_as_numbers(run: Run) -> None:
    result = run("pairs", "sequential", "photos", "--overlap", 1, "-o", "lists/pairs.txt", "--json")
    assert json.loads(result.stdout) == {"images": 6, "pairs": 5}
    assert Path("lists/pairs.txt").read_text().splitlines()[3] == "9.png 10.png"


def test_image_list_restricts_the_folder(run: Run) -> None:
    Path("names.txt").write_text("9.png\n1.png\n")
    assert run("pairs", "exhaustive", "photos", "--image-list", "names.txt").stdout == "1.png 9.png\n"


def test_pairs_from_standard_input(run: Run) -> None:
    runner = CliRunner()
    result = runner.invoke(app, ["match", "photos", "--pairs", "-", "--dry-run", "--json"], input="1.png 2.png\n")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["pairs"] == 1


def test_verbose_tells_what_results_depend_on(run: Run) -> None:
    words = ("match", "photos", "--dry-run", "--coarse-resolution", 64, "--no-upsample")
    assert "coarse_resolution 64x64" in run(*words, "-v").stderr
    assert "coarse_resolution" not in run(*words).stderr


def test_dry_run_counts_and_writes_nothing(run: Run) -> None:
    words = ("--dry-run", "--coarse-resolution", 64, "--upsample-resolution", 128, "--json")
    result = run("match", "photos", *words)
    assert result.exit_code == 0, result.stderr
    values = json.loads(result.stdout)
    assert (values["images"], values["pairs"], values["remaining"], values["encodes"]) == (6, 15, 15, 6)
    assert values["seconds"] > 0
    assert values["journal_bytes"] > 0
    assert not Path("romacli-out").exists()


def test_duplicate_pairs_are_reported_and_matched_once(run: Run) -> None:
    Path("pairs.txt").write_text("1.png 2.png\n2.png 1.png\n")
    result = run("match", "photos", "--pairs", "pairs.txt", "--dry-run", "--json")
    assert "1 duplicate or reversed pair; each pair is matched once" in result.stderr
    assert json.loads(result.stdout)["pairs"] == 1


def test_quiet_says_nothing_and_json_is_one_object(run: Run) -> None:
    Path("pairs.txt").write_text("1.png 2.png\n")
    words = ("--coarse-resolution", 64, "--upsample-resolution", 128, "--min-overlap", 0, "--min-certainty", 0)
    result = run("match", "photos", "--pairs", "pairs.txt", *words, "--quiet", "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert list(json.loads(result.stdout)) == [
        "images",
        "pairs",
        "matched",
        "turned",
        "found_by",
        "turned_images",
        "rejected",
        "failed",
        "encodes",
        "encodes_per_pair",
        "seconds",
    ]


def test_the_model_that_runs_is_named_with_the_way_to_the_full_one(run: Run) -> None:
    result = run("match", "photos", "--dry-run")
    assert re.search(r"model mini in b?float\d+, 6 images, 15 pairs", result.stderr)
    assert "romacli models download roma-outdoor" in result.stderr


def test_model_can_come_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROMACLI_MODEL", "roma-indoor")
    monkeypatch.setenv("ROMACLI_WEIGHTS_DIR", str(tmp_path))
    assert "--model roma-indoor needs roma_indoor.pth" in run("match", "photos").stderr


def test_models_are_listed_with_their_state(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROMACLI_WEIGHTS_DIR", str(tmp_path))
    rows = {row["name"]: row for row in json.loads(run("models", "list", "--json").stdout)["models"]}
    assert rows["mini"]["ready"]
    assert not rows["roma-outdoor"]["ready"]


def test_model_info_tells_licence_address_size_and_place(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROMACLI_WEIGHTS_DIR", str(tmp_path))
    text = run("models", "info", "roma-indoor").stdout
    for words in (
        "non-commercial",
        "https://github.com/Parskatt/storage/releases/download/roma/roma_indoor.pth",
        "about 445 MB",
        str(tmp_path / "roma_indoor.pth"),
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    ):
        assert words in text


def test_download_without_a_network_tells_how_to_do_without(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROMACLI_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setattr("romacli.networks.weights.open_https", _no_network)
    result = run("models", "download", "roma-outdoor")
    assert result.exit_code == 3
    for words in ("https://github.com/Parskatt", "roma_outdoor.pth", str(tmp_path / "weights"), "--weights FILE"):
        assert words in result.stderr


def _no_network(_: object) -> None:
    raise OSError("network is unreachable")


def test_download_of_the_embedded_model_has_nothing_to_do(run: Run) -> None:
    result = run("models", "download", "mini", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["files"][0].endswith("mini.safetensors")


def test_retrieval_pairs_what_looks_alike_and_keeps_its_descriptors(run: Run) -> None:
    words = (
        "--num-matched",
        1,
        "--coarse-resolution",
        64,
        "--descriptors",
        "kept/looks.h5",
        "-o",
        "pairs.txt",
        "--json",
    )
    result = run("pairs", "retrieval", "photos", *words)
    assert result.exit_code == 0, result.stderr
    assert 3 <= json.loads(result.stdout)["pairs"] <= 6
    first = Path("pairs.txt").read_text()
    again = run("pairs", "retrieval", "photos", *words)
    assert "descriptors of 6 of 6 photographs already exist" in again.stderr
    assert Path("pairs.txt").read_text() == first


def test_a_list_that_cannot_be_written_is_told_before_photographs_are_read(run: Run) -> None:
    result = run("pairs", "retrieval", "photos", "-o", "photos", "--descriptors", "looks.h5")
    assert result.exit_code == 6
    assert "photos cannot be written: Is a directory" in result.stderr
    assert not Path("looks.h5").exists()


def test_pairing_by_looks_and_preselection_in_one_job(run: Run) -> None:
    words = (
        "--pairing",
        "retrieval",
        "--num-matched",
        2,
        "--preselect",
        "--min-coarse-overlap",
        0,
        "--dry-run",
        "--json",
    )
    result = run("match", "photos", "--coarse-resolution", 64, *words)
    assert result.exit_code == 0, result.stderr
    assert 6 <= json.loads(result.stdout)["pairs"] <= 12


def test_the_coarse_threshold_is_that_of_matching_or_of_preselection() -> None:
    def options(*, preselect: bool, least: float | None) -> JobOptions:
        chosen = MatcherChoice(matcher=MatcherOptions(min_coarse_overlap=least))
        return JobOptions(ImageOptions(Path("photos")), matcher=chosen, pairing=PairingOptions(preselect=preselect))

    matching, preselecting = options(preselect=False, least=0.2), options(preselect=True, least=0.2)
    assert (matching.matcher_options.min_coarse_overlap, matching.preselected_from) == (0.2, None)
    assert (preselecting.matcher_options.min_coarse_overlap, preselecting.preselected_from) == (None, 0.2)
    assert options(preselect=False, least=None).matcher_options.min_coarse_overlap is None
    assert options(preselect=True, least=None).preselected_from == 0.05


def test_merged_pairs_are_counted_by_source(run: Run) -> None:
    Path("a.txt").write_text("1.png 2.png\n2.png 3.png\n")
    Path("b.txt").write_text("2.png 1.png\n1.png 3.png\n")
    result = run("pairs", "merge", "a.txt", "b.txt", "a.txt", "-o", "both.txt", "--json")
    assert json.loads(result.stdout) == {"pairs": 3, "added": {"a.txt": 2, "b.txt": 1}}
