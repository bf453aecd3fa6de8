from __future__ import annotations

from pathlib import Path

import pytest
from plane import photograph_plane

from romacli.eval.photographs import generate_photographs
from romacli.eval.throughput import bench, run_cached, run_uncached
from romacli.images.listing import list_images
from romacli.pairs import exhaustive
from romacli.pipeline.match import MatchOptions
from romacli.types import ImageList

NAMES = [f"{i}.png" for i in range(4)]


def test_counts_are_those_of_the_plan_and_of_no_reuse(tmp_path: Path) -> None:
    photographs = photograph_plane(tmp_path, NAMES)
    images, pairs = ImageList(photographs.root, photographs.names), exhaustive(NAMES)
    cached = run_cached(images, pairs, photographs.matcher, MatchOptions())
    assert (cached.pairs, cached.encodes, cached.prepares) == (6, 4, 4)
    uncached = run_uncached(images, pairs, photographs.matcher, MatchOptions(batch_size=3))
    assert (uncached.pairs, uncached.encodes) == (6, 12)
    assert 0 <= cached.outside <= 1


def test_compared_runs_give_one_ratio_each(tmp_path: Path) -> None:
    photographs = photograph_plane(tmp_path, NAMES)
    images = ImageList(photographs.root, photographs.names)
    said: list[str] = []
    options = MatchOptions()
    values = bench(images, exhaustive(NAMES), photographs.matcher, options, repeats=2, compare=True, say=said.append)
    assert len(values["ratios"]) == len(said) == 2
    assert values["cached"]["encodes_per_pair"] == pytest.approx(4 / 6, abs=1e-3)
    assert values["uncached"]["encodes_per_pair"] == 2
    assert values["fewest_encodes"] == 4
    assert values["matrix_gflops"] > 0
    assert values["copy_gb_s"] > 0


def test_generated_photographs_follow_from_the_seed_and_differ(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        generate_photographs(folder, 3)
    names = list_images(folders[0]).names
    contents = [[(folder / name).read_bytes() for name in names] for folder in folders]
    assert contents[0] == contents[1]
    assert len(set(contents[0])) == 3
