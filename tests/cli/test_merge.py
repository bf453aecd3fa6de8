from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.homography import HomographyMatcher
from support.plane import PlanePhotographs, photograph_plane
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.matchers import registry
from romacli.store.journal import Journal
from romacli.types import MatcherSpec

NAMES = ["1.png", "2 ü.png", "3.png", "4.png"]
Run = Callable[..., Result]


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlanePhotographs:
    monkeypatch.chdir(tmp_path)
    made = photograph_plane(Path("photos"), NAMES)
    for name in ("plane", "other"):
        nodes = {"plane": 20, "other": 24}[name]
        spec = MatcherSpec(name, lambda *_, nodes=nodes: HomographyMatcher(made.by_digest, nodes=nodes), "", "")
        monkeypatch.setitem(registry.MATCHERS, name, spec)
    return made


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def match(output: str, shard: str, *, photos: str = "photos", model: str = "plane") -> Result:
    return run(
        "match", photos, "-o", output, "--model", model, "--method", "cells", "--no-refine", "--shard", shard, "--json"
    )


def test_shards_of_one_folder_are_collected(photographs: PlanePhotographs) -> None:
    assert json.loads(match("job", "0/2").stdout)["pairs"] == 3
    early = run("merge", "job", "--method", "cells")
    assert early.exit_code == 4
    assert "3 of 6 pairs are not matched yet" in early.stderr
    match("job", "1/2")
    late = run("merge", "job", "--method", "cells", "--json")
    assert late.exit_code == 0, late.stderr
    assert (json.loads(late.stdout)["done"], json.loads(late.stdout)["images"]) == (6, 4)
    alone = run("match", "photos", "-o", "alone", "--model", "plane", "--method", "cells", "--no-refine")
    assert alone.exit_code == 0
    assert Path("job/matches.h5").stat().st_size == Path("alone/matches.h5").stat().st_size


def test_folders_matched_apart_from_copies_are_collected(photographs: PlanePhotographs) -> None:
    shutil.copytree("photos", "copies", copy_function=shutil.copyfile)
    match("here", "0/2")
    match("there", "1/2", photos="copies")
    merged = run("merge", "new/job", "here", "there", "--method", "cells", "--json")
    assert merged.exit_code == 0, merged.stderr
    assert (json.loads(merged.stdout)["done"], json.loads(merged.stdout)["files"]) == (6, 2)
    again = run("merge", "new/job", "here", "there", "--method", "cells", "--json")
    assert json.loads(again.stdout)["files"] == 0
    assert not Path("here/features.h5").exists()


def test_each_journal_is_read_once(photographs: PlanePhotographs, monkeypatch: pytest.MonkeyPatch) -> None:
    match("here", "0/2")
    match("there", "1/2")
    opened = []
    made = Journal.__init__
    monkeypatch.setattr(Journal, "__init__", lambda *args, **more: opened.append(args[1]) or made(*args, **more))
    assert run("merge", "job", "here", "there", "--method", "cells").exit_code == 0
    assert opened == [Path("job/journal")]


def test_other_settings_and_other_photographs_are_not_mixed(photographs: PlanePhotographs) -> None:
    match("here", "0/2")
    match("there", "1/2", model="other")
    settings = run("merge", "job", "here", "there")
    assert settings.exit_code == 2
    assert "there was made with --nodes 24, this run asks for 20. Merge only folders" in settings.stderr
    shutil.copytree("photos", "edited")
    Path("edited/1.png").write_bytes(Path("photos/1.png").read_bytes() + b"\0")
    match("edited-job", "1/2", photos="edited")
    pictures = run("merge", "job", "here", "edited-job")
    assert pictures.exit_code == 3
    assert "1.png differs between here and edited-job" in pictures.stderr
    assert not Path("job/journal").exists()


def test_photographs_of_one_size_in_bytes_with_other_contents_are_not_mixed(photographs: PlanePhotographs) -> None:
    for folder, last in (("a", b"\0"), ("b", b"\1")):
        shutil.copytree("photos", folder)
        (Path(folder) / "1.png").write_bytes(Path("photos/1.png").read_bytes() + last)
        words = ("match", folder, "-o", f"{folder}-job", "--model", "plane", "--method", "cells", "--no-refine")
        assert run(*words).exit_code == 0
    merged = run("merge", "job", "a-job", "b-job")
    assert merged.exit_code == 3
    assert "1.png differs between a-job and b-job: the contents are not equal." in merged.stderr


def test_a_folder_without_a_job_is_named(photographs: PlanePhotographs) -> None:
    for words in (("job",), ("job", "photos")):
        result = run("merge", *words)
        assert result.exit_code == 3
        assert f"{words[-1]} contains no job" in result.stderr
