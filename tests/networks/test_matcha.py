"""MATCHA's fusion network against arrays of the authors' code, and on its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from support.golden import GOLDEN, PARITY, compared, meta, watched
from support.seeded_matcha import field, inputs_of, seeded_matcha
from support.seeded_weights import seeded_state_dict
from torch import Tensor

from romacli.errors import WeightsError
from romacli.eval.statistics import pose_auc
from romacli.geometry.coordinates import from_colmap_pixels
from romacli.matchers.describers.matcha import dino_features
from romacli.matchers.describers.nearest import mutual_nearest
from romacli.networks.backbones.dinov2 import DINOv2, DINOv2Config
from romacli.networks.matcha import Fusion, FusionConfig, extended, merge, sampled, soft_targets

SMALL = FusionConfig(
    semantic_in=96, geometric_in=48, semantic_out=48, geometric_out=16, width=64, blocks=2, heads=4, head_width=1024
)
FOLDERS = (GOLDEN, PARITY / "matcha")
FUSED = sorted({path.name: path for folder in FOLDERS for path in folder.glob("golden_matcha_fusion*.npz")}.values())
MATCHED = sorted({path.name: path for folder in FOLDERS for path in folder.glob("golden_matcha_match*.npz")}.values())
LIMITS = (("", 5e-5),)  # standard deviations


@lru_cache(maxsize=1)
def checkpoint(config: FusionConfig, seed: int) -> Mapping[str, Tensor]:
    with torch.device("meta"):
        layout = {name: tuple(value.shape) for name, value in Fusion(config).state_dict().items()}
    return seeded_matcha(layout, seed=seed)


@pytest.mark.parametrize("path", FUSED, ids=lambda path: f"{path.parent.name}-{path.stem}")
@torch.no_grad()
def test_every_stage_agrees_with_the_authors_code(path: Path) -> None:
    golden = np.load(path)
    told = meta(golden)
    config = SMALL if "tiny" in path.stem else FusionConfig()
    c, f, dino = inputs_of(told["shapes"], told["input_seed"])
    np.testing.assert_array_equal(
        torch.cat([each.flatten()[:8] for each in (c, f, dino)]).numpy(), golden["input_head"][:24]
    )
    net = Fusion.from_checkpoint(checkpoint(config, told["weights"]["seed"]), config=config, fold=False)
    with watched(dict(net.named_modules())) as calls:
        F_s, F_g = net(c, f)
    seen = {name: found[0] for name, found in calls.items()}
    first, last = "dec_blocks.0.", f"block{config.blocks}_"
    stages = {
        "tok_c_in": seen["patch_embed_c/out"],
        "tok_f_in": seen["patch_embed_f/out"],
        **{f"block1_{n}": seen[f"{first}{n}/out"] for n in ("attnx", "attny", "cross_attnx", "cross_attny")},
        **{f"block1_{n}": seen[f"{first}{n}/out"] for n in ("mlpx", "mlpy")},
        "block1_f": seen["dec_blocks.1.normx1/in"],
        "block1_c": seen["dec_blocks.1.normy1/in"],
        f"{last}f": seen["dec_norm_f/in"],
        f"{last}c": seen["dec_norm_c/in"],
        "fusion_c_0": seen["fusion_c.0/out"],
        "fusion_f_0": seen["fusion_f.0/out"],
        "F_s": F_s,
        "F_g_raw": F_g,
        "F_g": torch.nn.functional.normalize(F_g, dim=1),
        "matcha": merge(F_g, F_s, dino, semantic=False),
        "matcha_semantic_mode": merge(F_g, F_s, dino, semantic=True),
        "light_uni": extended(*(torch.nn.functional.normalize(maps, dim=1) for maps in (F_g, F_s))),
        "dift_uni_released": extended(f, c),
    }
    found = compared(golden, stages, LIMITS)
    assert len(found) == len(stages)
    assert [each for each in found if each.is_too_large] == []


def test_folding_changes_nothing() -> None:
    c, f, _ = inputs_of({"c": [1, 96, 3, 4], "f": [1, 48, 6, 8], "dino": [1, 4, 3, 4]}, seed=1)
    maps = []
    for fold in (True, False):
        net = Fusion.from_checkpoint(checkpoint(SMALL, 3), config=SMALL, fold=fold)
        maps.append(torch.cat(net(c, f), dim=1))
    torch.testing.assert_close(*maps, atol=1e-4, rtol=0)


def test_heads_of_the_training_and_a_prefix_are_passed_over_and_nothing_else() -> None:
    state = {f"module.{name}": tensor for name, tensor in checkpoint(SMALL, 3).items()}
    extra = {"module.corr_model.x_normal": torch.zeros(64), "module.heatmap_head.2.bias": torch.zeros(1)}
    Fusion.from_checkpoint({**state, **extra}, config=SMALL)
    with pytest.raises(WeightsError, match="do not fit MATCHA: 1 unexpected"):
        Fusion.from_checkpoint({**state, "stranger": torch.zeros(1)}, config=SMALL)
    state.popitem()
    with pytest.raises(WeightsError, match="do not fit MATCHA: 1 missing"):
        Fusion.from_checkpoint(state, config=SMALL)


def test_odd_maps_are_refused() -> None:
    net = Fusion.from_checkpoint(checkpoint(SMALL, 3), config=SMALL)
    with pytest.raises(ValueError, match="sides must be even"):
        net(torch.zeros(1, 96, 3, 3), torch.zeros(1, 48, 5, 6))


@pytest.mark.parametrize("path", MATCHED, ids=lambda path: f"{path.parent.name}-{path.stem}")
@pytest.mark.parametrize("case", ["dense_strong", "dense_weak"])
def test_soft_targets_are_those_of_the_authors_code(path: Path, case: str) -> None:
    golden = {name: array for name, array in np.load(path).items() if name.startswith(case)}
    source, target = (torch.from_numpy(golden[f"{case}/{side}"]) for side in ("src", "trg"))
    x, y = golden[f"{case}/query_cells_xy"].T
    queries = source[:, y, x].T
    found = soft_targets(queries, target)
    np.testing.assert_allclose(found.numpy(), golden[f"{case}/soft_window7"], atol=1e-4)
    assert np.abs(found.numpy() - golden[f"{case}/NOT_reference_minus_inf_mask"]).max() > 0.01 or case != "dense_weak"


def test_soft_targets_of_a_grid_that_is_not_square_lie_on_it() -> None:
    maps = torch.nn.functional.normalize(torch.randn(32, 5, 30, generator=torch.Generator().manual_seed(0)), dim=0)
    found = soft_targets(maps[:, [4, 0], [29, 2]].T, maps, temperature=0.01)
    torch.testing.assert_close(found, torch.tensor([[29.0, 4.0], [2.0, 0.0]]), atol=0.05, rtol=0)


@pytest.mark.parametrize("path", MATCHED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_keypoints_are_described_and_matched_as_by_the_authors_code(path: Path) -> None:
    golden, described = np.load(path), []
    for side in (0, 1):
        height, width = meta(golden)[f"image{side}_hw"]
        places = from_colmap_pixels(torch.from_numpy(golden[f"sparse/kpts{side}"]) + 0.5, (width, height))
        found = sampled(torch.from_numpy(golden[f"sparse/desc{side}"]), places, (width, height))
        np.testing.assert_allclose(found.T[None].numpy(), golden[f"sparse/sampled{side}"], atol=1e-5)
        described.append(found)
    rows = mutual_nearest(described[:1], described[1:])[0][0].numpy()
    matches = np.full(len(described[0]), -1)
    matches[rows[:, 0]] = rows[:, 1]
    clear = golden["sparse/top1_minus_top2"] > 1e-5
    np.testing.assert_array_equal(matches[clear], golden["sparse/matches0"][clear])


@torch.no_grad()
def test_dinov2_is_given_images_as_by_the_authors_code() -> None:
    path = PARITY / "matcha" / "golden_matcha_dinov2.npz"
    if not path.is_file():
        pytest.skip("the golden arrays of the full network are not here")
    golden = np.load(path)
    with torch.device("meta"):
        network = DINOv2(DINOv2Config()).eval()
    layout = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict(seeded_state_dict(layout, seed=0, group="dinov2"), assign=True)
    for told in meta(golden)["inputs"]:
        shape = (told["batch"], 3, told["height"], told["width"])
        image = field("image", shape, told["seed"], 0.2, smooth=2) + 0.5
        expected = golden[f"feat_{told['height']}x{told['width']}"]
        assert np.abs(dino_features(network, image).numpy() - expected).max() < 2e-4 * expected.std()


@pytest.mark.parametrize("path", MATCHED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_area_under_recall_is_the_authors_of_one_error_a_pair(path: Path) -> None:
    golden = np.load(path)
    found = [pose_auc(golden["pose/errors_deg"], threshold) for threshold in (5, 10, 20)]
    np.testing.assert_allclose(found, golden["pose/auc_5_10_20"], atol=1e-6)
