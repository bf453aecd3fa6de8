from __future__ import annotations

from pathlib import Path

import pytest

from romacli.errors import InputError
from romacli.store.layout import Layout, about_other_models, layout_of, model_of


def test_every_file_lies_directly_under_the_root_with_its_own_name():
    layout = Layout(Path("OUT"))
    paths = [
        layout.manifest,
        layout.pairs,
        layout.journal,
        layout.features,
        layout.matches,
        layout.database,
        layout.sparse,
    ]
    assert {path.parent for path in paths} == {Path("OUT")}
    assert len({path.name for path in paths}) == 7


def job_with(root: Path, models: int) -> Layout:
    layout = Layout(root / "job")
    for number in range(models):
        (layout.sparse / str(number)).mkdir(parents=True)
    layout.manifest.write_text("{}")
    return layout


def test_a_model_is_named_by_its_folder_and_a_job_means_the_largest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_with(tmp_path, 3)
    assert layout_of(job.root) == job
    assert model_of(job) == job.sparse / "0"
    second = layout_of(job.sparse / "2")
    assert second == Layout(job.root, 2)
    assert model_of(second) == job.sparse / "2"
    monkeypatch.chdir(job.sparse)
    assert layout_of(Path("2")) == second
    monkeypatch.chdir(tmp_path)
    assert layout_of(Path("job/sparse/2")) == Layout(Path("job"), 2)
    assert layout_of(tmp_path / "2") == Layout(tmp_path / "2")


def test_files_of_a_further_model_lie_apart(tmp_path: Path) -> None:
    first, second = job_with(tmp_path, 2), Layout(tmp_path / "job", 1)
    assert second.cloud == first.dense / "1" / "fused.ply"
    assert second.depth_map("a.jpg").parent == first.dense / "1" / "depth_maps"
    assert (first.exported("text").name, second.exported("text").name) == ("text", "text-1")


def test_a_model_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    job = job_with(tmp_path, 2)
    with pytest.raises(InputError, match=r"sparse/7 does not exist; .*job has 2 models: .*sparse/0, .*sparse/1\."):
        model_of(layout_of(job.sparse / "7"))


def test_other_models_are_told_only_where_the_largest_is_used(tmp_path: Path) -> None:
    two = job_with(tmp_path, 2)
    assert f"the largest of 2 models; to use another, give its folder instead of {two.root}: {two.sparse / '1'}" in str(
        about_other_models(two)
    )
    assert about_other_models(Layout(two.root, 1)) is None
    assert about_other_models(job_with(tmp_path / "one", 1)) is None
