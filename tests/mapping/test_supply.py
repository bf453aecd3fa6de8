"""What a mapper lacks: each stage, emptied in turn, is the one that is named."""

from __future__ import annotations

import numpy as np
import pytest
from support.small_scene import make_scene

from romacli.colmap.database import write_database
from romacli.colmap.options import VerifyOptions
from romacli.mapping.supply import Supply, measure_supply, verified_groups, what_lacks
from romacli.words import counted

PLENTY = Supply(images=10, pairs=20, matches=800, verified=18, inliers=600, groups=(10,), shared=0.6)


def changed(**values) -> Supply:
    return Supply(**{**vars(PLENTY), **values})


@pytest.mark.parametrize(
    ("supply", "stage", "remedy"),
    [
        (changed(pairs=0, matches=0, verified=0, inliers=0, groups=(), shared=0), "Too few pairs", "more pairs"),
        (changed(pairs=8), "Too few pairs", "more pairs"),
        (changed(matches=20, verified=0, inliers=0, groups=(), shared=0), "The pairs that match", "--min-certainty"),
        (changed(verified=1, groups=(2,), shared=0), "No rigid motion", "--camera-params"),
        (changed(shared=0.02), "Hardly a point", "--method tracks"),
        (PLENTY, "The photographs may", "init_min_tri_angle"),
        (changed(inliers=60), "The photographs may", "init_min_num_inliers"),
    ],
)
def test_the_first_stage_that_gave_too_little_is_named(supply, stage, remedy):
    sentence = what_lacks(supply)
    assert sentence.startswith(stage)
    assert remedy in sentence
    assert f"{counted(supply.verified, 'is', 'are')} verified" in sentence


def test_every_stage_is_counted(tmp_path):
    scene = make_scene(5)
    matches = {pair: rows for pair, rows in scene.matches.items() if "004.jpg" not in pair}
    rng = np.random.default_rng(0)
    matches["003.jpg", "004.jpg"] = np.stack([rng.permutation(240)[:200], rng.permutation(240)[:200]], axis=1)
    scene.write(tmp_path / "a.db", matches=matches.items())
    supply = measure_supply(tmp_path / "a.db")
    assert (supply.images, supply.pairs, supply.verified, supply.connected) == (5, 7, 6, 4)
    assert 200 < supply.inliers <= supply.matches <= 250
    assert supply.shared > 0.9
    assert verified_groups(tmp_path / "a.db") == measure_supply(tmp_path / "a.db").groups


def test_points_of_two_images_alone_are_not_shared(tmp_path):
    scene = make_scene(4)
    pairs = {("000.jpg", "001.jpg"), ("002.jpg", "003.jpg")}
    scene.write(tmp_path / "a.db", matches=[(pair, rows) for pair, rows in scene.matches.items() if pair in pairs])
    supply = measure_supply(tmp_path / "a.db")
    assert (supply.connected, supply.shared) == (2, 0)


def test_an_empty_database_has_nothing(tmp_path):
    write_database(
        tmp_path / "a.db", cameras=[], camera_of={}, keypoints={}, matches=[], verify=VerifyOptions(num_threads=1)
    )
    assert measure_supply(tmp_path / "a.db") == Supply(0, 0, 0.0, 0, 0.0, (), 0.0)
    assert verified_groups(tmp_path / "a.db") == ()
