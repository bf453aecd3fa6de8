"""Jobs of a matcher that `--dtype auto` runs in bfloat16 on some CPUs and in float32 on others."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.homography import HomographyMatcher
from support.plane import PlanePhotographs, photograph_plane

from romacli.errors import NothingFoundError, SettingsDifferError
from romacli.images.options import ImageOptions
from romacli.job import matching
from romacli.job.job import open_job
from romacli.job.matching import run_job
from romacli.job.options import JobOptions, KeypointOptions
from romacli.matchers import registry
from romacli.matchers.options import MatcherChoice, MatcherOptions
from romacli.progress import Silent
from romacli.refine.options import RefineOptions
from romacli.run.match import MatchSummary
from romacli.run.options import EngineName, EngineOptions
from romacli.stop import StopRequest
from romacli.store.history import read_runs
from romacli.store.layout import Layout
from romacli.store.manifest import read_manifest, write_manifest
from romacli.types import MatcherSpec

EITHER = "float32 or bfloat16"


class Computer:
    """A machine whose CPU computes in `dtype` if it may choose, and the photographs on it."""

    def __init__(self, folder: Path) -> None:
        self.dtype = "bfloat16"
        self.photographs: PlanePhotographs = photograph_plane(folder / "photos", ["1.png", "2.png", "3.png"])
        self._output = folder / "job"

    def build(self, options: MatcherOptions, model: str) -> HomographyMatcher:
        may_choose = options.dtype in ("auto", EITHER)
        dtype = self.dtype if may_choose else options.dtype

        class OfType(HomographyMatcher):
            name, in_either_dtype = model, may_choose

            @property
            def settings(self) -> dict[str, Any]:
                return {**super().settings, "dtype": dtype}

        return OfType(self.photographs.by_digest, nodes=20)

    def run(self, *pairs: str, model: str = "plane", dtype: str = "auto", engine: EngineName | None = None) -> int:
        """The number of pairs that a run of the job matches."""
        listed = self._output.parent / "pairs.txt"
        listed.write_text("\n".join(pairs) + "\n")
        options = JobOptions(
            ImageOptions(self.photographs.root),
            self._output,
            pairs=str(listed),
            matcher=MatcherChoice(model, MatcherOptions(dtype=dtype)),
            keypoints=KeypointOptions(refine=RefineOptions(refine=False), typed=frozenset({"refine"})),
            engine=EngineOptions(engine),
        )
        return run_job(open_job(options, Silent()), Silent(), StopRequest()).run


@pytest.fixture
def computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Computer:
    made = Computer(tmp_path)
    monkeypatch.setitem(registry.MATCHERS, "plane", MatcherSpec("plane", made.build, "", ""))
    return made


def test_a_job_goes_on_in_the_type_of_each_machine_and_tells_how_many_pairs_had_which(
    computer: Computer, tmp_path: Path
) -> None:
    assert computer.run("1.png 2.png") == 1
    computer.dtype = "float32"
    assert computer.run("1.png 2.png", "2.png 3.png", "1.png 3.png") == 2
    layout = Layout(tmp_path / "job")
    stored = read_manifest(layout.manifest)
    assert stored is not None
    assert stored.settings["dtype"] == EITHER
    counts = [run.counts for run in read_runs(layout.runs) if run.stage == "matching"]
    assert [each.get("bfloat16 pairs") for each in counts] == [1, None]
    assert [each.get("float32 pairs") for each in counts] == [None, 2]


@pytest.mark.parametrize(("asked", "expected"), [("auto", EITHER), ("float32", "float32")])
def test_processes_on_other_devices_match_in_the_type_of_the_job(
    computer: Computer, monkeypatch: pytest.MonkeyPatch, asked: str, expected: str
) -> None:
    given = []
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))  # opening the job asks for it
    monkeypatch.setattr(
        matching, "match_in_parallel", lambda setup, *_: given.append(setup.matcher.dtype) or MatchSummary()
    )
    for word in (asked, "auto"):
        with pytest.raises(NothingFoundError):
            computer.run("1.png 2.png", dtype=word, engine=EngineName.ray)
    assert given == [expected, expected]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_job_in_either_type_may_be_continued_in_a_given_one(computer: Computer, dtype: str) -> None:
    computer.run("1.png 2.png")
    assert computer.run("1.png 2.png", "2.png 3.png", dtype=dtype) == 1
    assert computer.run("1.png 2.png", "2.png 3.png") == 0


def test_a_job_in_a_given_type_goes_on_in_it_where_the_type_may_be_chosen(computer: Computer, tmp_path: Path) -> None:
    computer.run("1.png 2.png", dtype="float32")
    assert computer.run("1.png 2.png", "2.png 3.png") == 1
    counts = read_runs(Layout(tmp_path / "job").runs)[-2].counts
    assert counts["float32 pairs"] == 1
    with pytest.raises(SettingsDifferError, match="made with --dtype float32, this run asks for bfloat16"):
        computer.run("1.png 2.png", dtype="bfloat16")


def test_another_matcher_is_not_asked_for_the_type_of_the_job(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def build(options: MatcherOptions, model: str) -> HomographyMatcher:
        asked.append(options.dtype)
        return computer.build(options, model)

    monkeypatch.setitem(registry.MATCHERS, "other", MatcherSpec("other", build, "", ""))
    computer.run("1.png 2.png")
    with pytest.raises(SettingsDifferError, match="made with --model plane, this run asks for other"):
        computer.run("1.png 2.png", model="other")
    assert asked == ["auto"]


def test_another_type_than_the_two_is_refused(computer: Computer, tmp_path: Path) -> None:
    computer.run("1.png 2.png")
    with pytest.raises(SettingsDifferError, match=f"made with --dtype {EITHER}, this run asks for float16"):
        computer.run("1.png 2.png", dtype="float16")
    layout = Layout(tmp_path / "job")
    stored = read_manifest(layout.manifest)
    assert stored is not None
    write_manifest(layout.manifest, replace(stored, settings={**stored.settings, "dtype": "float16"}))
    with pytest.raises(SettingsDifferError, match=f"made with --dtype float16, this run asks for {EITHER}"):
        computer.run("1.png 2.png")
