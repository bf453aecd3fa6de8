"""Models that collapse different parts of a scene onto each other, detected from warps that disagree."""

from __future__ import annotations

from pathlib import Path

import pycolmap
import pytest
from support.posed_job import posed_job
from support.small_scene import make_scene

from romacli.colmap.poses import read_poses
from romacli.filter.folds import find_fold
from romacli.filter.placed import Comparison
from romacli.job.outputs.folded import look_after, noted_fold
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import ReconstructionSummary, reconstruct, take_out
from romacli.progress import Silent
from romacli.stop import StopRequest
from romacli.types import Pair

WHOLE, TORN = Comparison(300, 0), Comparison(0, 300)
MADE = ReconstructionSummary(5, 5, 400, 1500, 3.0, 0.5, 1)


def test_blocks_that_only_seams_join_are_apart() -> None:
    pairs = {(0, 1): 90, (2, 3): 90, (1, 2): 60, (1, 3): 50, (0, 3): 0}
    compared = {edge: TORN if edge in {(1, 2), (1, 3)} else WHOLE for edge in pairs}
    fold = find_fold(pairs, compared)
    assert fold.seams == ((1, 2), (1, 3))
    assert fold.blocks == ((0, 1), (2, 3))


def test_one_seam_or_a_pair_that_is_dropped_says_nothing() -> None:
    compared = {(0, 1): WHOLE, (1, 2): TORN, (0, 2): TORN}
    kept = dict.fromkeys(compared, 9.0)
    assert find_fold(kept, compared).seams == ((0, 2), (1, 2))
    del kept[0, 2]
    assert not find_fold(kept, compared).seams


def shifted(pair: Pair) -> float:
    """Px by which the warps between the first three images and the others are off."""
    return 150.0 if (pair[0] < "3.png") != (pair[1] < "3.png") else 0.0


@pytest.mark.parametrize("is_torn", [False, True])
def test_images_that_their_matches_contradict_are_left_out_and_named(tmp_path: Path, is_torn: bool) -> None:
    job = posed_job(tmp_path, **({"shift": shifted} if is_torn else {}))
    model, found = look_after(job.layout, MADE, Silent(), StopRequest())
    assert found.left_out == (("3.png", "4.png") if is_torn else ())
    assert len(found.seams) == (6 if is_torn else 0)
    assert model.registered == (3 if is_torn else 5)
    assert any("3.png" in told and "contradict" in told for told in found.warnings) == is_torn
    assert read_poses(job.layout.sparse / "0").keys() == {f"{k}.png" for k in range(model.registered)}
    assert noted_fold(job.layout) == found
    assert look_after(job.layout, model, Silent(), StopRequest()) == (model, found)


def test_an_image_that_is_taken_out_leaves_the_others_where_they_are(tmp_path: Path) -> None:
    scene, database, sparse = make_scene(6), tmp_path / "a.db", tmp_path / "sparse"
    scene.write(database)
    made = reconstruct(database, tmp_path, sparse, MapperOptions(refine_intrinsics=False, num_threads=1))
    before = read_poses(sparse / "0")
    left, taken = take_out(sparse, ["002.jpg"], made)
    assert taken == {"002.jpg"}
    after = read_poses(sparse / "0")
    assert after.keys() == before.keys() - {"002.jpg"}
    assert all((after[name].translation == before[name].translation).all() for name in after)
    assert (left.registered, left.models) == (made.registered - 1, 1)
    assert left.observations < made.observations


def test_cameras_of_a_rig_are_taken_out_together_and_all_named(tmp_path: Path) -> None:
    options = pycolmap.SyntheticDatasetOptions(num_rigs=1, num_cameras_per_rig=2, num_frames_per_rig=4, num_points3D=60)
    model = pycolmap.synthesize_dataset(options)
    (tmp_path / "0").mkdir()
    model.write(tmp_path / "0")
    names = {model.images[data.id].name for data in model.frames[1].image_ids}
    left, taken = take_out(tmp_path, [min(names)], MADE)
    assert len(names) == 2
    assert taken == names
    assert left.registered == 6
    assert read_poses(tmp_path / "0").keys().isdisjoint(names)
