"""`romacli check` finds damage, repairs what it can and reports the rest."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.homography import HomographyMatcher
from support.plane import photograph_plane
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.job.outputs.output import Fault, Output
from romacli.matchers import registry
from romacli.store.journal import Journal
from romacli.store.layout import Layout
from romacli.store.lease import lease
from romacli.types import MatcherSpec

NAMES = [f"{k}.png" for k in range(4)]
MATCH = ("match", "photos", "-o", "job", "--model", "plane", "--method", "cells", "--max-keypoints", 300, "--no-refine")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished job in the working directory."""
    monkeypatch.chdir(tmp_path)
    made = photograph_plane(Path("photos"), NAMES)
    spec = MatcherSpec("plane", lambda *_: HomographyMatcher(made.by_digest, nodes=20), "", "")
    monkeypatch.setitem(registry.MATCHERS, "plane", spec)
    done = run(*MATCH)
    assert done.exit_code == 0, done.stderr
    return Path("job")


def journal_file(job: Path) -> Path:
    (path,) = job.glob("journal/*.jnl")
    return path


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        file.write(data)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def starts(path: Path) -> list[int]:
    content = path.read_bytes()
    return [index for index in range(len(content)) if content[index : index + 4] == b"RCJ1"]


def test_a_sound_job_has_no_findings_and_is_not_changed(job: Path) -> None:
    assert run("colmap-import", "photos", "-o", job).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in job.rglob("*") if path.is_file()}
    for words in ((), ("--repair",)):
        result = run("check", job, *words, "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout) == {"files": 7, "pairs": 6, "missing": 0, "findings": []}
    assert {path: path.stat().st_mtime_ns for path in job.rglob("*") if path.is_file()} == before


def test_a_torn_tail_is_cut_off(job: Path) -> None:
    path = journal_file(job)
    os.truncate(path, path.stat().st_size - 5)
    found = run("check", job)
    assert found.exit_code == 6
    assert "are an unfinished record" in found.stderr
    assert "1 of 6 pairs must be matched" in found.stderr
    mended = run("check", job, "--repair")
    assert mended.exit_code == 0
    assert "They were removed." in mended.stderr
    assert run("check", job).exit_code == 0


@pytest.mark.parametrize("where", ["header", "payload", "first record"])
def test_damage_costs_its_record_alone_and_is_cut_out(job: Path, where: str) -> None:
    path = journal_file(job)
    records = starts(path)
    offset = {"header": records[2] + 40, "payload": records[3] - 9, "first record": 30}[where]
    overwrite(path, offset, b"\xff\0\xff")
    found = run("check", job)
    assert found.exit_code == 6
    assert f"{path}: bytes" in found.stderr
    assert "are damaged" in found.stderr
    mended = run("check", job, "--repair")
    assert mended.exit_code == 0, mended.stderr
    lost = 0 if where == "first record" else 1
    assert (f"{lost} of 6 pairs must be matched" in mended.stderr) == bool(lost)
    with Journal(job / "journal", verify=True) as journal:
        assert (len(journal), journal.damaged) == (6 - lost, [])
    again = run(*MATCH, "--json")
    assert (again.exit_code, json.loads(again.stdout)["pairs"]) == (0, 6)


def test_a_journal_of_nothing_is_put_aside(job: Path) -> None:
    path = job / "journal" / "zeros.jnl"
    path.write_bytes(bytes(5000))
    assert run("check", job).exit_code == 6
    assert run("check", job, "--repair").exit_code == 0
    assert path.with_name("zeros.jnl.damaged").exists()
    assert run(*MATCH).exit_code == 0


@pytest.mark.parametrize("name", ["features.h5", "matches.h5"])
@pytest.mark.parametrize("damage", [halve, lambda path: path.write_bytes(b"x")], ids=["halved", "foreign"])
def test_damaged_hloc_files_are_derived_anew_as_they_were(
    job: Path, name: str, damage: Callable[[Path], object]
) -> None:
    sizes = {path.name: path.stat().st_size for path in job.glob("*.h5")}
    damage(job / name)
    found = run("check", job)
    assert found.exit_code == 6
    assert f"{name}" in found.stderr
    assert "--repair rebuilds it" in found.stderr
    assert run("check", job, "--repair").exit_code == 0
    assert {path.name: path.stat().st_size for path in job.glob("*.h5")} == sizes
    assert run("check", job).exit_code == 0


IMPORT = ("colmap-import", "photos", "-o", "job", "--camera-mode", "single", "--min-inliers", 20)


def tables(database: Path) -> list[list[tuple[object, ...]]]:
    with closing(sqlite3.connect(database)) as connection:
        return [connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in ("images", "matches")]


def test_a_damaged_database_is_made_anew_as_it_was(job: Path) -> None:
    assert run(*IMPORT).exit_code == 0
    database, before = job / "database.db", tables(job / "database.db")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM images WHERE image_id = 2")
        connection.commit()
    found = run("check", job)
    assert found.exit_code == 6
    assert "rows of keypoints belong to no image" in found.stderr
    overwrite(database, 0, b"\xff" * 9000)
    mended = run("check", job, "--repair")
    assert mended.exit_code == 0, mended.stderr
    assert "It was rebuilt from the hloc files; the damaged one is database.db.damaged" in mended.stderr
    assert tables(database) == before
    assert run("check", job).exit_code == 0
    again = run(*IMPORT)
    assert "is up to date" in again.stderr


def test_a_damaged_database_is_not_up_to_date(job: Path) -> None:
    assert run(*IMPORT).exit_code == 0
    halve(job / "database.db")
    again = run(*IMPORT)
    assert again.exit_code == 6
    assert "up to date" not in again.stderr
    assert "`romacli check JOB --repair` rebuilds" in again.stderr


def test_the_command_that_makes_a_database_is_told(job: Path) -> None:
    assert run(*IMPORT, "--database", "other place.db").exit_code == 0
    before = tables(Path("other place.db"))
    halve(Path("other place.db"))
    found = run("check", job)
    assert found.exit_code == 6
    (command,) = set(re.findall("`(romacli colmap-import .*?)`", found.stderr))
    Path("other place.db").unlink()
    again = run(*shlex.split(command)[1:])
    assert again.exit_code == 0, again.stderr
    assert tables(Path("other place.db")) == before


def test_a_database_that_cannot_be_made_anew_is_put_aside(job: Path) -> None:
    assert run(*IMPORT).exit_code == 0
    halve(job / "database.db")
    Path("photos").rename("elsewhere")
    failed = run("check", job, "--repair")
    assert failed.exit_code == 6
    assert "Rebuilding it failed" in failed.stderr
    assert (job / "database.db.damaged").exists()
    assert not (job / "database.db").exists()


def test_a_database_of_unknown_origin_is_left_to_a_command(job: Path) -> None:
    (job / "database.db").write_bytes(b"SQLite format 3\0 and no more")
    found = run("check", job)
    assert found.exit_code == 6
    assert "`romacli colmap-import PHOTOS -o job`" in found.stderr
    assert run("check", job, "--repair").exit_code == 6
    assert (job / "database.db.damaged").exists()


def test_a_database_that_is_open_elsewhere_is_left_alone(job: Path) -> None:
    assert run(*IMPORT).exit_code == 0
    halve(job / "database.db")
    (job / "database.db-wal").touch()
    assert run("check", job, "--repair").exit_code == 6
    assert (job / "database.db").exists()


@pytest.mark.parametrize("name", ["manifest.json", "images.json"])
@pytest.mark.parametrize(
    ("harm", "fault"), [("newer", "another version"), ("folder", "cannot be read: Is a directory")]
)
def test_a_small_file_that_is_newer_or_cannot_be_read_stays_where_it_is(
    job: Path, name: str, harm: str, fault: str
) -> None:
    path = job / name
    if harm == "newer":
        path.write_text(path.read_text().replace('"format": 1', '"format": 2').replace('"format":1', '"format":2'))
    else:
        path.unlink()
        path.mkdir()
    result = run("check", job, "--repair")
    assert result.exit_code == 6
    assert f"{path}: " in result.stderr
    assert fault in result.stderr
    assert path.exists()


@pytest.mark.parametrize("name", ["manifest.json", "images.json", "pairs.txt"])
def test_damaged_small_files_are_named_and_the_job_continues(job: Path, name: str) -> None:
    (job / name).write_bytes(b"\xff{[")
    found = run("check", job)
    assert found.exit_code == 6
    assert f"{name}: it is damaged" in found.stderr
    assert run("check", job, "--repair").exit_code == (0 if name == "images.json" else 6)
    again = run(*MATCH)
    assert again.exit_code == 0, again.stderr
    assert "6 of 6 pairs are already done" in again.stderr
    assert run("check", job).exit_code == 0


def test_a_list_of_pairs_cut_off_within_a_name_is_damaged(job: Path) -> None:
    (job / "pairs.txt").write_bytes((job / "pairs.txt").read_bytes()[:-2])
    found = run("check", job)
    assert found.exit_code == 6
    assert "pairs.txt: it is damaged" in found.stderr


@pytest.mark.parametrize("name", ["manifest.json", "pairs.txt"])
def test_a_missing_small_file_is_a_fault_and_the_job_continues(job: Path, name: str) -> None:
    (job / name).unlink()
    for words in ((), ("--repair",)):
        found = run("check", job, *words)
        assert found.exit_code == 6
        assert f"{name}: it is missing. Running the same `romacli match` command" in found.stderr
    again = run(*MATCH)
    assert "6 of 6 pairs are already done" in again.stderr
    assert run("check", job).exit_code == 0


def test_without_a_manifest_no_pair_is_done_that_has_no_record(job: Path) -> None:
    (job / "manifest.json").unlink()
    for journal in job.glob("journal/*.jnl"):
        halve(journal)
    assert re.search(r"[1-6] of 6 pairs must be matched", run("check", job).stderr)


def test_repair_keeps_off_a_job_at_work(job: Path) -> None:
    with lease(job / "leases"):
        assert run("check", job).exit_code == 0
        assert run("check", job, "--repair").exit_code == 75


def test_a_folder_without_a_job_is_named(tmp_path: Path) -> None:
    result = run("check", tmp_path)
    assert result.exit_code == 3
    assert f"{tmp_path} contains no job" in result.stderr


@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("sparse/0/points3D.bin", "romacli reconstruct"),
        ("dense/fused.ply", "romacli densify"),
        ("report.json", "romacli report"),
    ],
)
def test_damage_to_what_has_a_command_of_its_own_is_named_with_it(job: Path, file: str, remedy: str) -> None:
    damaged = job / file
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_bytes(b"\xff half")
    for words in ((), ("--repair",)):
        found = run("check", job, *words)
        assert found.exit_code == 6
        assert str(damaged.parent if "sparse" in file else damaged) in found.stderr
        assert remedy in found.stderr
    assert damaged.exists()
    assert run(*MATCH, "--overwrite").exit_code == 0
    assert not damaged.exists()


def test_an_output_is_a_row(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def files(layout: Layout) -> list[Path]:
        return [layout.root / "toy.txt"]

    def faults(layout: Layout, progress: object) -> list[Fault]:
        return [Fault(path, "it is empty", "Write to it.") for path in files(layout) if not path.read_text()]

    for module in ("check", "matching"):
        monkeypatch.setattr(f"romacli.job.{module}.OUTPUTS", (Output(files, files, faults),))
    (job / "toy.txt").touch()
    found = run("check", job)
    assert found.exit_code == 6
    assert "toy.txt: it is empty. Write to it." in found.stderr
    assert run(*MATCH, "--overwrite").exit_code == 0
    assert not (job / "toy.txt").exists()
