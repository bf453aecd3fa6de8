from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import REPOSITORY
from support.plane import photograph_plane

from romacli.cli.measuring.bench import table
from romacli.eval import throughput
from romacli.eval.photographs import generate_photographs
from romacli.eval.throughput import Bench, Compared, Run, spread
from romacli.images.listing import list_images
from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import load_seeded
from romacli.pairs.exhaustive import exhaustive
from romacli.run.options import MatchOptions
from romacli.types import ImageList, PairList

NAMES = [f"{i}.png" for i in range(4)]


def measured(root: Path, options: MatchOptions | None = None) -> tuple[Bench, PairList]:
    photographs = photograph_plane(root, NAMES)
    images = ImageList(photographs.root, photographs.names)
    return Bench(images, photographs.matcher, options or MatchOptions()), exhaustive(NAMES)


def test_counts_are_those_of_the_plan_and_of_no_reuse(tmp_path: Path) -> None:
    bench, pairs = measured(tmp_path, MatchOptions(batch_size=3))
    cached, uncached = bench.cached(pairs), bench.uncached(pairs)
    assert (cached.pairs, cached.encodes, cached.prepares) == (6, 4, 4)
    assert (uncached.pairs, uncached.encodes) == (6, 12)
    assert 0 <= cached.outside <= 1


def compare(root: Path, **more: int) -> tuple[dict[str, Any], list[str]]:
    bench, pairs = measured(root)
    said: list[str] = []
    values = throughput.bench(
        bench.images, pairs, bench.matcher, bench.options, repeats=2, compare=True, say=said.append, **more
    )
    return values, said


def test_compared_runs_give_one_ratio_each_beside_their_bound(tmp_path: Path) -> None:
    values, said = compare(tmp_path)
    assert len(values["ratios"]) == len(said) == 2
    assert values["cached"]["encodes_per_pair"] == pytest.approx(4 / 6, abs=1e-3)
    assert values["uncached"]["encodes_per_pair"] == 2
    assert values["uncached_pairs"] == 6
    assert values["fewest_encodes"] == 4
    assert values["bound"] > 0
    assert values["of_bound"] > 0


def test_a_sample_is_compared_as_if_it_were_all(tmp_path: Path) -> None:
    values, _ = compare(tmp_path, uncached_pairs=1)
    assert values["uncached_pairs"] == 1
    assert values["uncached"]["encodes"] == 2


def run(wall_s: float, encode_s: float, match_s: float, encodes: int, pairs: int) -> Run:
    return Run(wall_s, 0.0, 0, 0.0, encode_s, match_s, 0, encodes, pairs, 0)


def test_ratio_and_bound_follow_from_the_stages() -> None:
    cached = run(wall_s=100, encode_s=4 * 10, match_s=6 * 8, encodes=4, pairs=6)
    halves = (run(wall_s=28, encode_s=20, match_s=8, encodes=2, pairs=1),) * 2
    compared = Compared(cached, halves, images=4)
    assert compared.ratio == pytest.approx(6 * 28 / 100)
    assert compared.bound == pytest.approx(6 * 28 / (40 + 48))


@pytest.mark.parametrize(("count", "expected"), [(1, "d"), (3, "bdf"), (7, "abcdefg"), (9, "abcdefg")])
def test_a_sample_is_spread_over_the_list(count: int, expected: str) -> None:
    assert spread([(letter, "") for letter in "abcdefg"], count) == tuple((letter, "") for letter in expected)


def test_the_table_tells_the_shares_of_the_stages(tmp_path: Path) -> None:
    images = list_images(generate_photographs(tmp_path, 3))
    options = MatcherOptions(device="cpu", coarse_resolution=(64, 64), upsample_resolution=(96, 96))
    values = throughput.bench(
        images,
        exhaustive(images.names),
        load_seeded("mini", options),
        MatchOptions(),
        repeats=1,
        compare=False,
        say=lambda _: None,
    )
    assert values["rejected"] == 0
    assert sum(values["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert min(values["shares"]["encode"], values["shares"]["match"]) > 0
    lines = table({"model": "mini", "weights": "seeded", **values}).splitlines()
    assert lines[0] == "mini with seeded weights, 3 images, 3 pairs, median of 1"
    assert any("encode" in line and "outside" in line for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory has other units elsewhere")
def test_a_pair_of_roma_takes_less_than_four_gigabytes_on_a_cpu() -> None:
    words = "--model roma-outdoor --seeded-weights --device cpu --num-images 2 --repeats 1 --batch-size 1 --json"
    command = [sys.executable, "-m", "romacli", "bench", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["peak_gb"] < 4


def test_generated_photographs_follow_from_the_seed_and_differ(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        generate_photographs(folder, 3)
    names = list_images(folders[0]).names
    contents = [[(folder / name).read_bytes() for name in names] for folder in folders]
    assert contents[0] == contents[1]
    assert len(set(contents[0])) == 3
