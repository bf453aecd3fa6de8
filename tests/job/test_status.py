"""The progress of a job, as reported at every stage."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.homography import HomographyMatcher
from support.plane import photograph_plane
from support.small_job import plane_job
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.errors import InputError
from romacli.matchers import registry
from romacli.store.history import photographs_of, read_runs
from romacli.types import MatcherSpec

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    made = photograph_plane(Path("photos"), [f"{number}.png" for number in range(4)])
    spec = MatcherSpec("plane", lambda *_: HomographyMatcher(made.by_digest, nodes=20), "", "")
    monkeypatch.setitem(registry.MATCHERS, "plane", spec)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def states(run: Run) -> dict[str, str]:
    result = run("status", "job", "--json")
    assert result.exit_code == 0, result.stderr
    return {stage["name"]: stage["state"] for stage in json.loads(result.stdout)["stages"]}


def test_a_job_is_told_as_it_grows(run: Run) -> None:
    common = ("photos", "-o", "job", "--model", "plane", "--no-refine")
    assert run("match", *common, "--shard", "0/2").exit_code == 0
    assert states(run)["matching"] == "partly done"
    assert states(run)["keypoints"] == "not made yet"
    assert "--model plane --no-refine" in run("status", "job").stdout.splitlines()[-1]
    Path("some.txt").write_text("0.png 1.png\n1.png 2.png\n2.png 3.png\n")
    assert run("match", *common, "--pairs", "some.txt").exit_code == 0
    assert states(run) | {"model": ""} == {
        "matching": "done",
        "keypoints": "done",
        "database": "not made yet",
        "model": "",
    }
    told = run("status", "job").stdout
    assert re.search(r"made from \d+ tracks in 4 images", told.replace(",", ""))
    assert "next: romacli colmap-import" in told
    assert run("colmap-import", "photos", "-o", "job").exit_code == 0
    assert states(run)["database"] == "done"


@pytest.mark.parametrize("harm", ["cut", "folder", "gone"])
def test_a_file_that_cannot_be_read_is_told_with_what_repairs_it(run: Run, harm: str) -> None:
    common = ("photos", "-o", "job", "--model", "plane", "--no-refine")
    assert run("match", *common).exit_code == 0
    assert run("colmap-import", "photos", "-o", "job").exit_code == 0
    path = Path("job/matches.h5")
    content = path.read_bytes()
    path.unlink()
    if harm == "cut":
        path.write_bytes(content[:-100])
    elif harm == "folder":
        path.mkdir()
    assert states(run)["keypoints"] == ("not made yet" if harm == "gone" else "damaged")
    assert re.search(r"^keypoints .* matches\.h5$", run("status", "job").stdout, re.MULTILINE)
    assert states(run)["database"] == "done"
    following = run("status", "job").stdout.splitlines()[-1]
    assert following.startswith("next: romacli " + ("match" if harm == "gone" else "check job --repair"))


def test_a_damaged_database_or_model_is_told_with_what_makes_it_again(run: Run) -> None:
    assert run("match", "photos", "-o", "job", "--model", "plane", "--no-refine").exit_code == 0
    Path("job/database.db").write_bytes(b"no database")
    assert states(run)["database"] == "damaged"
    assert run("status", "job").stdout.splitlines()[-1] == "next: romacli check job --repair"
    Path("job/database.db").unlink()
    assert run("colmap-import", "photos", "-o", "job").exit_code == 0
    Path("job/sparse/0").mkdir(parents=True)
    Path("job/sparse/0/images.bin").write_bytes(b"no model")
    assert states(run)["model"] == "damaged"
    assert run("status", "job").stdout.splitlines()[-1].startswith("next: romacli reconstruct")


def test_what_was_made_before_pairs_were_added_is_out_of_date(run: Run) -> None:
    common = ("photos", "-o", "job", "--model", "plane", "--no-refine")
    Path("some.txt").write_text("0.png 1.png\n1.png 2.png\n")
    assert run("match", *common, "--pairs", "some.txt").exit_code == 0
    assert run("colmap-import", "photos", "-o", "job").exit_code == 0
    assert run("match", *common, "--shard", "0/1").exit_code == 0
    assert states(run)["keypoints"] == "out of date"
    assert run("match", *common).exit_code == 0
    found = states(run)
    assert (found["keypoints"], found["database"]) == ("done", "out of date")


@pytest.mark.parametrize(("harm", "fault"), [(lambda path: path.unlink(), "missing"), (Path.touch, "damaged")])
def test_a_job_without_its_pairs_or_records_tells_how_to_get_them_back(
    run: Run, harm: Callable[[Path], None], fault: str
) -> None:
    common = ("photos", "-o", "job", "--model", "plane", "--no-refine")
    assert run("match", *common).exit_code == 0
    for journal in Path("job/journal").iterdir():
        journal.unlink()
    assert "4 images, but not from the pairs matched now" in run("status", "job").stdout
    Path("job/pairs.txt").write_text("")
    harm(Path("job/pairs.txt"))
    result = run("status", "job")
    assert result.exit_code == 6
    assert f"pairs.txt is {fault}. Run the same `romacli match`" in result.stderr
    assert run("match", *common).exit_code == 0
    assert states(run)["keypoints"] == "done"


def test_a_database_elsewhere_is_the_job_s(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("match", "photos", "-o", "job", "--model", "plane", "--no-refine").exit_code == 0
    assert run("colmap-import", "photos", "-o", "job", "--database", "other.db", "--no-calibrate").exit_code == 0
    assert states(run)["database"] == "done"
    assert "--database" in run("status", "job").stdout
    monkeypatch.setattr("romacli.report.report.find_spec", lambda name: None)  # the JSON file alone
    assert run("report", "job").exit_code == 4
    assert json.loads(Path("job/report.json").read_text())["verified"]


def test_the_next_command_keeps_the_pairs(run: Run) -> None:
    chosen = "0.png 1.png\n1.png 2.png\n"
    Path("some.txt").write_text(chosen)
    common = ("photos", "-o", "job", "--model", "plane", "--no-refine")
    assert run("match", *common, "--pairs", "some.txt", "--shard", "0/2").exit_code == 0
    command = json.loads(run("status", "job", "--json").stdout)["next"]
    assert run(*shlex.split(command)[1:]).exit_code == 0
    assert Path("job/pairs.txt").read_text() == chosen


def test_the_next_command_repeats_the_options_that_were_typed(run: Run) -> None:
    words = ("--model", "plane", "--no-refine", "--seed", "3", "--max-keypoints", "50", "--batch-size", "2")
    assert run("match", "photos", "-o", "job", *words, "--shard", "0/2").exit_code == 0
    result = run(*shlex.split(json.loads(run("status", "job", "--json").stdout)["next"])[1:])
    assert result.exit_code == 0, result.stderr
    manifest = json.loads(Path("job/manifest.json").read_text())
    assert manifest["settings"]["seed"] == 3
    assert '"max_keypoints": 50,' in manifest["views"]["keypoints"]["made_with"]
    assert "--max-keypoints" not in run("status", "job", "--json").stdout  # the job knows how they were made


def test_other_options_with_nothing_to_match_are_noted_without_a_run_of_matching(run: Run) -> None:
    words = ("match", "photos", "-o", "job", "--model", "plane", "--no-refine")
    for more in ((), ("--num-workers", "1"), ("--num-workers", "1")):
        assert run(*words, *more).exit_code == 0
    runs = read_runs(Path("job/runs.jsonl"))
    assert [each.stage for each in runs] == ["matching", "keypoints", "options"]
    assert "--num-workers 1" in run("status", "job", "--json").stdout


def test_the_next_command_after_an_unfinished_reconstruct_is_the_same(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise InputError("stopped")

    monkeypatch.setattr("romacli.job.outputs.database.import_matches", stop)
    mapping = ("--camera-mode", "single", "--mapper-option", "min_num_matches=9", "--database", "other.db")
    assert run("reconstruct", "photos", "-o", "job", "--model", "plane", "--no-refine", *mapping).exit_code == 3
    command = shlex.split(json.loads(run("status", "job", "--json").stdout)["next"])
    assert command[1] == "reconstruct"
    assert {*mapping[:-1], str(Path("other.db").resolve())} < {*command}
    assert run("match", "photos", "-o", "job", "--model", "plane").exit_code == 0
    assert "next: romacli colmap-import" in run("status", "job").stdout


def test_an_unreadable_photograph_does_not_hold_the_job_up(run: Run) -> None:
    Path("photos/broken.png").write_bytes(b"")
    assert run("match", "photos", "-o", "job", "--model", "plane", "--no-refine").exit_code == 4
    told = run("status", "job").stdout
    assert "6 of 10 pairs, 6 of them matched; 4 with unreadable photographs" in told
    assert "next: romacli colmap-import" in told
    checked, reported = run("check", "job").stderr, run("report", "job").stderr
    assert "4 of 10 pairs must be matched" in checked
    assert "Their photographs could not be read" in checked
    assert "4 of 10 pairs are not matched as photographs could not be read: replace or remove these first" in reported
    assert "yet" not in reported


def test_a_folder_without_a_job_is_named(run: Run) -> None:
    result = run("status", "photos")
    assert result.exit_code == 3
    assert "photos contains no job" in result.stderr


KILLED = """
import signal, sys
from pathlib import Path
from romacli.progress import Silent
from support.small_job import plane_job

class Waiting(Silent):
    def advance(self, count=1):
        print("began", flush=True)
        signal.pause()

plane_job(Path(sys.argv[1]), listener=Waiting())
"""


def test_a_first_run_that_is_killed_has_told_where_its_photographs_are(run: Run, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"began\n"
        process.kill()
    assert f"romacli match {tmp_path / 'photos'} -o job" in run("status", "job").stdout
    (killed,) = read_runs(tmp_path / "job" / "runs.jsonl")
    assert not killed.finished


def test_a_run_that_ends_is_noted_once(tmp_path: Path) -> None:
    layout, photographs = plane_job(tmp_path)
    stages = [each.stage for each in read_runs(layout.runs)]
    assert stages == ["matching", "keypoints"]
    assert photographs_of(layout) == photographs.root
