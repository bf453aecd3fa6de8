from __future__ import annotations

import pickle
from dataclasses import replace

import cv2
import h5py
import numpy as np
import pytest
import torch
from support.depth_sets import PHOTOGRAPH, at_size, scene, write_megadepth, write_scannet

from romacli.errors import InputError, UsageError
from romacli.geometry.coordinates import from_colmap_pixels, to_colmap_pixels
from romacli.synthetic.pairs import photograph_twice
from romacli.synthetic.scenes import render_view
from romacli.train.data import photographs, posed
from romacli.train.data.megadepth import LEFT_OUT, megadepth_scenes, read_scene_list
from romacli.train.data.photographs import PhotographedPairs, mirrored
from romacli.train.data.posed import PosedView, Window, inverse_depth_at, warp_from_depth
from romacli.train.data.scannet import scannet_scenes
from romacli.train.data.source import pair_source
from romacli.train.options import TrainOptions, check

SIZE = 112
CPU = torch.device("cpu")


def inner(planes, camera):
    """Pixels whose neighbours all show the same plane: no depth edge is near."""
    _, index, _ = render_view(planes, camera)
    same = cv2.erode(index.astype(np.float32), np.ones((5, 5))) == cv2.dilate(index.astype(np.float32), np.ones((5, 5)))
    return same & (index >= 0)


@pytest.mark.parametrize("seed", [1, 4])
@pytest.mark.parametrize("kind", ["megadepth", "scannet"])
def test_warp_from_files_equals_the_exact_warp(tmp_path, monkeypatch, kind, seed):
    monkeypatch.setattr(photographs, "MIRRORED_SHARE", 0)
    planes, cameras = scene(seed)
    if kind == "scannet":  # one camera for all frames
        cameras = (cameras[0], replace(cameras[1], K=cameras[0].K))
    {"megadepth": write_megadepth, "scannet": write_scannet}[kind](tmp_path, planes, cameras)
    source = pair_source(TrainOptions(tmp_path / "x", data=kind, data_dir=tmp_path), CPU)
    images, warps, seen = source.begun(np.random.default_rng(0), SIZE, 1)
    image, warp, visible = images[0], to_colmap_pixels(warps, (SIZE, SIZE))[0].numpy(), seen[0].numpy()
    small = at_size(cameras[0], (SIZE, SIZE)), at_size(cameras[1], (SIZE, SIZE))
    truth = photograph_twice(planes, small)
    clear = inner(planes, small[0])
    both = clear & visible & truth.visible_AB
    assert both.mean() > 0.3
    error = np.linalg.norm(warp - truth.warp_AB, axis=-1)[both]
    assert error.max() < (0.02 if kind == "megadepth" else 0.1)  # ScanNet stores depth in millimetres
    assert (visible == truth.visible_AB)[clear].mean() > 0.97
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - truth.image_A)[clear].mean() < 12


def test_mirrored_pair_leads_to_mirrored_places(tmp_path):
    planes, cameras = scene(2)
    write_megadepth(tmp_path, planes, cameras)
    source = PhotographedPairs.of(megadepth_scenes(tmp_path), least_overlaps=(0.0,))
    views, _ = source._pair(np.random.default_rng(0), SIZE)
    warp, visible = warp_from_depth(*views)
    batch = (
        torch.cat([view.image for view in views]),
        from_colmap_pixels(torch.from_numpy(warp)[None], (SIZE, SIZE)),
        torch.from_numpy(visible)[None],
    )
    images, turned, seen = mirrored(batch)
    y, x = np.argwhere(visible)[5]
    x_B, y_B = turned[0, y, SIZE - 1 - x].tolist()
    assert seen[0, y, SIZE - 1 - x]
    expected = from_colmap_pixels(warp[y, x], (SIZE, SIZE))
    assert (x_B, y_B) == pytest.approx((-expected[0], expected[1]), abs=1e-5)
    assert torch.equal(images[0, :, y, SIZE - 1 - x], batch[0][0, :, y, x])


def test_window_keeps_intrinsics_and_depth_in_step(tmp_path):
    planes, cameras = scene(3)
    camera = at_size(cameras[0], PHOTOGRAPH)
    view = render_view(planes, camera)
    depth = np.where(view.inverse_depth > 0, 1 / np.maximum(view.inverse_depth, 1e-9), 0).astype(np.float32)
    whole = PosedView(view.rgb, depth, camera.K, np.eye(4))
    cut = posed.at_size(whole, Window(40, 20, 200, 160), (100, 80))
    expected = render_view(planes, replace(camera, K=cut.K, size=(100, 80)))
    clear = inner(planes, replace(camera, K=cut.K, size=(100, 80)))
    np.testing.assert_allclose(cut.inverse_depth[clear], expected.inverse_depth[clear], rtol=1e-3)
    assert np.median(np.abs(cut.image[0].permute(1, 2, 0).numpy().astype(int) - expected.rgb)[clear]) < 6


def test_unknown_depth_is_neither_seen_nor_spread():
    depth = np.full((4, 6), 2.0, np.float32)
    depth[1, 2] = 0
    depth[3] = 5
    points = np.array([[0.5, 0.5], [2.5, 1.5], [2.1, 1.5], [2.9, 1.5], [1.5, 2.6], [1.5, 3.4], [6, 0]], np.float32)
    assert inverse_depth_at(depth, points).tolist() == pytest.approx([0.5, 0, 0, 0, 0.5, 0.2, 0.5])


def test_inverse_depth_of_a_slanted_plane_is_exact_between_pixels():
    x = np.arange(8, dtype=np.float32) + 0.5
    depth = np.tile(1 / (0.2 + 0.002 * x), (5, 1)).astype(np.float32)
    points = np.array([[3.2, 2.9], [5.75, 1.1]], np.float32)
    np.testing.assert_allclose(inverse_depth_at(depth, points), 0.2 + 0.002 * points[:, 0], rtol=1e-6)


def test_pairs_are_drawn_from_both_mixtures_and_test_scenes_are_left_out(tmp_path):
    planes, cameras = scene(5)
    for name in ("0001", "0015", "0022", "5016"):
        path = write_megadepth(tmp_path, planes, cameras, name)
    info = read_scene_list(path)
    info.update(pairs=np.array([[0, 1], [1, 0], [0, 1]]), overlaps=np.array([0.005, 0.2, 0.6]))
    np.save(tmp_path / "prep_scene_info/0001.npy", info, allow_pickle=True)
    scenes = megadepth_scenes(tmp_path)
    assert [found.name for found in scenes] == ["0001"]
    source = PhotographedPairs.of(scenes, least_overlaps=(0.01, 0.35))
    assert [pairs.tolist() for _, pairs in source.groups] == [[[1, 0], [0, 1]], [[0, 1]]]
    np.testing.assert_allclose(source.chances, np.array([2**0.25, 1]) / (2**0.25 + 1))
    assert len(LEFT_OUT) == 23


def spoil_depth(root):
    (root / "depths/0001/1.h5").unlink()


def cut_depth(root):
    path = root / "depths/0001/0.h5"
    path.write_bytes(path.read_bytes()[:700])


def spoil_dataset(root):
    with h5py.File(root / "depths/0001/0.h5", "w") as file:
        file["height"] = np.ones((3, 3))


def flat_depth(root):
    with h5py.File(root / "depths/0001/0.h5", "w") as file:
        file["depth"] = np.ones(9)


def remove_lists(root):
    (root / "prep_scene_info/0001.npy").unlink()


def cut_list(root):
    path = root / "prep_scene_info/0001.npy"
    path.write_bytes(path.read_bytes()[:200])


def plain_list(root):
    np.save(root / "prep_scene_info/0001.npy", np.arange(4))


def without_poses(root):
    info = dict(read_scene_list(root / "prep_scene_info/0001.npy"))
    del info["poses"]
    np.save(root / "prep_scene_info/0001.npy", info, allow_pickle=True)


def beyond(root):
    info = dict(read_scene_list(root / "prep_scene_info/0001.npy"), pairs=np.array([[0, 7]]))
    np.save(root / "prep_scene_info/0001.npy", info, allow_pickle=True)


def of_no_file(root):
    info = dict(read_scene_list(root / "prep_scene_info/0001.npy"), pairs=np.array([[0, 2]]))
    np.save(root / "prep_scene_info/0001.npy", info, allow_pickle=True)


def only_tests(root):
    (root / "prep_scene_info/0001.npy").rename(root / "prep_scene_info/0015.npy")


def too_little_overlap(root):
    info = dict(read_scene_list(root / "prep_scene_info/0001.npy"), overlaps=np.array([0.001]))
    np.save(root / "prep_scene_info/0001.npy", info, allow_pickle=True)


class Malicious:
    def __reduce__(self):
        return print, ("code ran",)


def code_in_list(root):
    np.save(root / "prep_scene_info/0001.npy", {"image_paths": Malicious()}, allow_pickle=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (spoil_depth, r"1 of 4 files of scene 0001 are missing, first .*depths/0001/1\.h5"),
        (cut_depth, r"0\.h5 cannot be read as a depth map"),
        (spoil_dataset, r"0\.h5 cannot be read as a depth map"),
        (flat_depth, r"0\.h5 contains depths of shape \(9,\)"),
        (remove_lists, r"no scene lists prep_scene_info/\*\.npy"),
        (cut_list, r"0001\.npy cannot be read as a scene list"),
        (plain_list, r"0001\.npy cannot be read as a scene list: it contains only numbers"),
        (without_poses, r"0001\.npy lacks poses"),
        (beyond, r"0001\.npy is inconsistent"),
        (of_no_file, r"Scene 0001 lists pairs of image 2, but no file"),
        (only_tests, r"All 1 scenes in .* are reserved for tests"),
        (too_little_overlap, r"None of 1 pair in 1 scene overlaps more than 0\.01"),
        (code_in_list, r"0001\.npy .*wants to call builtins\.print"),
    ],
)
def test_damaged_megadepth_is_named(tmp_path, damage, message, capsys):
    write_megadepth(tmp_path, *scene(1))
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        pair_source(TrainOptions(tmp_path / "x", data="megadepth", data_dir=tmp_path), CPU).begun(
            np.random.default_rng(0), SIZE, 1
        )
    assert "code ran" not in capsys.readouterr().out


def cut_png(root):
    path = root / "scans/scans_train/scene0003_01/depth/10.png"
    path.write_bytes(path.read_bytes()[:-30])


def lost_pose(root):
    np.savetxt(root / "scans/scans_train/scene0003_01/pose/0.txt", np.full((4, 4), -np.inf))


def no_pose(root):
    (root / "scans/scans_train/scene0003_01/pose/0.txt").write_text("1 2 three")


def no_color(root):
    (root / "scans/scans_train/scene0003_01/color/0.jpg").unlink()


def no_pairs(root):
    (root / "scannet_indices/scene0003_01.npz").unlink()


def cut_npz(root):
    path = root / "scannet_indices/scene0003_01.npz"
    path.write_bytes(path.read_bytes()[:150])


def code_in_npz(root):
    np.savez(root / "scannet_indices/scene0003_01.npz", name=np.array([[Malicious()] * 4]), score=np.ones(1))


def other_columns(root):
    np.savez(root / "scannet_indices/scene0003_01.npz", name=np.ones((3, 2)), score=np.ones(1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_png, r"depth/10\.png cannot be read as a 16-bit depth map"),
        (lost_pose, r"pose/0\.txt contains no finite 4 x 4 matrix"),
        (no_pose, r"pose/0\.txt cannot be read as a matrix"),
        (no_color, r"1 of 7 files of scene scene0003_01 are missing, first .*color/0\.jpg"),
        (no_pairs, r"no lists of pairs scannet_indices/\*\.npz"),
        (cut_npz, r"scene0003_01\.npz cannot be read as a list of pairs"),
        (code_in_npz, r"scene0003_01\.npz cannot be read as a list of pairs"),
        (other_columns, r"contains name \(3, 2\) and score \(1,\)"),
    ],
)
def test_damaged_scannet_is_named(tmp_path, damage, message):
    write_scannet(tmp_path, *scene(1))
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        pair_source(TrainOptions(tmp_path / "x", data="scannet", data_dir=tmp_path), CPU).begun(
            np.random.default_rng(0), SIZE, 1
        )


def test_lists_pickled_by_older_numpy_are_read(tmp_path):
    path = write_megadepth(tmp_path, *scene(1))
    info = read_scene_list(path)
    with path.open("rb") as file:
        header = file.read(np.lib.format.MAGIC_LEN + 2 + 118)
    data = pickle.dumps(np.array(info, object), protocol=2).replace(b"numpy._core", b"numpy.core")
    path.write_bytes(header + data)
    assert list(read_scene_list(path)["image_paths"]) == list(info["image_paths"])


def test_scannet_numbers_views_by_frame(tmp_path):
    write_scannet(tmp_path, *scene(1))
    (found,) = scannet_scenes(tmp_path)
    assert found.name == "scene0003_01"
    assert found.pairs.tolist() == [[0, 10]]
    assert found.overlaps.tolist() == pytest.approx([0.4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "kitti"}, "--data kitti is not known. Known: synthetic, megadepth, scannet."),
        ({"data": "megadepth"}, "need --data-dir"),
        ({"data_dir": "here"}, "need --data-dir"),
        ({"data": "scannet", "data_dir": "here", "textures": "there"}, "not scannet"),
        ({"smallest_window": 0.0}, "--smallest-window 0 is not a fraction"),
    ],
)
def test_contradicting_options_are_refused(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        check(replace(TrainOptions(tmp_path / "x"), **change))
