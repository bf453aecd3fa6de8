"""Real photographs through the command line, if their folder is next to the repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from support.commands import REPOSITORY, result_of, romacli_alone
from support.seeded_relatives import published
from support.small_romav2 import small_checkpoint

from romacli.colmap.poses import compare_poses, read_poses
from romacli.networks import dkm, tiny_roma
from romacli.networks.dkm import DKM
from romacli.networks.romav2 import PUBLISHED
from romacli.networks.tiny_roma import TinyRoMa

DATA = REPOSITORY.parent / "shared" / "data"
pytestmark = pytest.mark.slow
SEEDED = {
    "tiny-roma": lambda: published(TinyRoMa(), tiny_roma.checkpoint_name, "tiny"),
    "dkm-outdoor": lambda: published(DKM(), dkm.checkpoint_name, "dkm", **dkm.CLASSIFIER),
    "roma-v2": lambda: small_checkpoint(PUBLISHED),
}


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
        listed = romacli_alone("pairs", "sequential", folder, "--overlap", overlap, "-o", pairs[1])
        assert listed.returncode == 0, listed.stderr
    result = result_of(romacli_alone("reconstruct", folder, *pairs, "-o", tmp_path / "out", "--json"))
    assert result["registered"] >= fewest


def test_mini_sparse_registers_all_photographs_of_a_walk(tmp_path: Path) -> None:
    folder = DATA / "sceaux" / "images"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    words = ("reconstruct", folder, "--model", "mini-sparse", "-o", tmp_path / "out", "--json")
    assert result_of(romacli_alone(*words))["registered"] == 11


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("tiny-roma", ()),
        ("dkm-outdoor", ("--coarse-resolution", "256x192", "--no-upsample")),
        ("roma-v2", ("--preset", "turbo")),
    ],
)
def test_a_network_that_knows_nothing_ends_with_a_model_or_says_why_not(
    model: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    folder = DATA / "berlin" / "images"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    torch.save(SEEDED[model](), tmp_path / "seeded.pth")
    # Every pair and every match counts, or random weights would leave nothing to map.
    every = ("--min-overlap", 0, "--min-certainty", 0, "--weights", tmp_path / "seeded.pth")
    run = romacli_alone("reconstruct", folder, "-o", tmp_path / "out", "--model", model, *every, *words)
    assert run.returncode in (0, 5), run.stderr
    assert "Traceback" not in run.stderr
    assert (tmp_path / "out" / "database.db").exists()
    if run.returncode == 5:
        assert run.stderr.strip().splitlines()[-1].startswith("error: ")


def test_pairs_in_order_and_pairs_that_look_alike_register_the_same_photographs(tmp_path: Path) -> None:
    folder = DATA / "freiburg"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    registered = []
    for words in (("sequential",), ("retrieval", "--num-matched", 5)):
        out = tmp_path / words[0]
        result_of(
            romacli_alone("reconstruct", folder, "--pairing", *words, "--camera-mode", "single", "-o", out, "--json")
        )
        registered.append(set(read_poses(out / "sparse" / "0")))
    assert registered[0] == registered[1]
    assert len(registered[0]) >= 15


def test_a_model_of_photographs_is_used_in_every_way(tmp_path: Path) -> None:
    """Nine photographs are mapped; one left out is localized and another is registered; then cloud and exports."""
    folder = DATA / "sceaux" / "images"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    names = sorted(path.name for path in folder.iterdir())
    photos, queries, job, found = (tmp_path / name for name in ("photos", "queries", "job", "found"))
    for name in names:
        target = queries if name == names[4] else photos
        target.mkdir(exist_ok=True)
        shutil.copy2(folder / name, target / name)
    joins = photos / names[7]
    later = joins.rename(tmp_path / names[7])
    words = ("reconstruct", photos, "-o", job, "--camera-mode", "single", "--json")
    assert result_of(romacli_alone(*words))["registered"] == len(names) - 2
    before = read_poses(job / "sparse" / "0")
    assert result_of(romacli_alone("localize", queries, "--model", job, "-o", found, "--json"))["posed"] == 1
    later.rename(joins)
    assert result_of(romacli_alone("register", photos, "--output", job, "--json"))["added"] == [names[7]]
    after = read_poses(job / "sparse" / "0")
    assert after.keys() == {*before, names[7]}
    errors = compare_poses(after, before)
    assert errors.rotation_deg.max() < 0.2
    assert result_of(romacli_alone("densify", job, "--json"))["points"] > 10_000
    for kind in ("undistorted", "nerfstudio", "openmvg"):
        assert romacli_alone("export", kind, job).returncode == 0
        assert any((job / kind).iterdir())
