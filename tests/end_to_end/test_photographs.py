"""Real photographs through the command line, when the folder of them lies beside the repository."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import REPOSITORY, result_of, romacli

from romacli.colmap.poses import read_poses

DATA = REPOSITORY.parent / "shared" / "data"
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("images", "overlap", "fewest"),
    [("sceaux/images", None, 10), ("freiburg", 5, 15), ("berlin/images", None, 3)],
    ids=["walk round a facade", "indoor camera path", "three of a street"],
)
def test_mini_registers_nearly_all_photographs(images: str, overlap: int | None, fewest: int, tmp_path: Path) -> None:
    folder = DATA / images
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    pairs: list[object] = []
    if overlap is not None:
        pairs = ["--pairs", tmp_path / "pairs.txt"]
        listed = romacli("pairs", "sequential", folder, "--overlap", overlap, "-o", pairs[1])
        assert listed.returncode == 0, listed.stderr
    result = result_of(romacli("reconstruct", folder, *pairs, "-o", tmp_path / "out", "--json"))
    assert result["registered"] >= fewest


def test_mini_sparse_registers_all_photographs_of_a_walk(tmp_path: Path) -> None:
    folder = DATA / "sceaux" / "images"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    words = ("reconstruct", folder, "--model", "mini-sparse", "-o", tmp_path / "out", "--json")
    assert result_of(romacli(*words))["registered"] == 11


def test_pairs_in_order_and_pairs_that_look_alike_register_the_same_photographs(tmp_path: Path) -> None:
    folder = DATA / "freiburg"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    registered = []
    for words in (("sequential",), ("retrieval", "--num-matched", 5)):
        out = tmp_path / words[0]
        result_of(romacli("reconstruct", folder, "--pairing", *words, "--camera-mode", "single", "-o", out, "--json"))
        registered.append(set(read_poses(out / "sparse" / "0")))
    assert registered[0] == registered[1]
    assert len(registered[0]) >= 15
