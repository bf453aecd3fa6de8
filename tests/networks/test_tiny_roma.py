"""Tiny RoMa against arrays of the authors' code, and on its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from support.golden import GOLDEN, PARITY, compared, meta, picture
from support.seeded_relatives import digest, seeded_relative
from torch import Tensor

from romacli.errors import WeightsError
from romacli.networks.tiny_roma import TinyRoMa, XFeat, checkpoint_name
from romacli.networks.weights import load_strictly, read_state_dict, weights_folder

CASES = sorted(GOLDEN.glob("golden_tiny*.npz")) + sorted(PARITY.glob("golden_tiny[01].npz"))
# In standard deviations; those of the refined flow and certainty are a few times the effect of float64.
LIMITS = (("fine|coarse$|coarse\\[", 2e-4), ("flow|warp", 5e-4), ("certainty", 2e-3))
XFEAT_SHA256 = "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b"


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    with torch.device("meta"):
        layout = {checkpoint_name(name): tuple(value.shape) for name, value in TinyRoMa().state_dict().items()}
    state = seeded_relative(layout, group="tiny")
    assert digest(state, absolute=False) == "1de09cd150597368"
    return state


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
@torch.inference_mode()
def test_every_stage_agrees_with_the_authors_code(path: Path, checkpoint: Mapping[str, Tensor]) -> None:
    golden = np.load(path)
    net = TinyRoMa.from_checkpoint(checkpoint, exact_softmax=meta(golden)["case"]["exact_softmax"])
    a, b = (net.encode(picture(golden, f"im_{side}_u8")) for side in "AB")
    started = net.start(a, b, symmetric=False)
    refined = net.refine(started, a, b)
    match = net.match(a, b)
    stages = {
        "A_fine": a["fine"][:, ::3, ::2, ::2],
        "A_coarse": a["coarse"][:, ::4],
        "B_coarse": b["coarse"][:, ::4],
        "scale8_flow": started.tensors["flow"],
        "scale8_certainty": started.tensors["certainty"],
        "scale4_flow": refined.tensors["flow"],
        "scale4_certainty": refined.tensors["certainty"],
        "warp": torch.cat([torch.zeros_like(match.warp_AB[0]), match.warp_AB[0]], dim=2),
        "certainty": match.certainty_AB[0],
    }
    found = compared(golden, stages, LIMITS)
    assert len(found) == len(stages)
    assert [each for each in found if each.is_too_large] == []


def test_both_directions_at_once_are_those_one_by_one(checkpoint: Mapping[str, Tensor]) -> None:
    net = TinyRoMa.from_checkpoint(checkpoint)
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    a, b = (net.encode(image[None]) for image in images)
    both, there, back = net.match(a, b, symmetric=True), net.match(a, b), net.match(b, a)
    torch.testing.assert_close(both.warp_AB, there.warp_AB)
    torch.testing.assert_close(both.warp_BA, back.warp_AB)
    torch.testing.assert_close(both.certainty_BA, back.certainty_AB)


def test_folding_changes_nothing(checkpoint: Mapping[str, Tensor]) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    warps = []
    for fold in (True, False):
        net = TinyRoMa.from_checkpoint(checkpoint, fold=fold)
        warps.append(net.match(*(net.encode(image[None]) for image in images)).warp_AB)
    torch.testing.assert_close(*warps, atol=1e-4, rtol=0)


def test_images_smaller_than_the_deepest_stride_are_refused(checkpoint: Mapping[str, Tensor]) -> None:
    net = TinyRoMa.from_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="sides must be at least 32"):
        net.encode(torch.zeros(1, 3, 31, 64))


def test_another_networks_file_is_named(checkpoint: Mapping[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match="those of RoMa, not of Tiny RoMa"):
        TinyRoMa.from_checkpoint({"decoder.embedding_decoder.to_out.weight": torch.zeros(1)})
    half = dict(list(checkpoint.items())[:50])
    with pytest.raises(WeightsError, match="do not fit Tiny RoMa: 62 missing"):
        TinyRoMa.from_checkpoint(half)


@pytest.mark.weights
@torch.inference_mode()
def test_xfeats_real_weights_give_the_authors_features() -> None:
    file, golden_file = weights_folder() / "xfeat.pt", PARITY / "golden_xfeat_real.npz"
    if not file.is_file() or not golden_file.is_file():
        pytest.skip("xfeat.pt is not in the weights folder, or its golden arrays are not here")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == XFEAT_SHA256
    state, golden, net = read_state_dict(file), np.load(golden_file), XFeat()
    load_strictly(net, {name: state[name] for name in net.state_dict()}, str, what="XFeat")
    for side in "AB":
        shape = (224, 320)
        image = torch.nn.functional.interpolate(picture(golden, f"im_{side}_u8"), shape, mode="bilinear")
        fine, coarse = net(image)
        found = compared(golden, {f"block2_{side}": fine, f"block_fusion_{side}": coarse}, ((("", 1e-3)),))
        assert len(found) == 2
        assert [each for each in found if each.is_too_large] == []
        sums = [function(each.double()).sum() for each in (fine, coarse) for function in (torch.positive, torch.abs)]
        np.testing.assert_allclose(sums, golden[f"sums_{side}"], rtol=1e-5)
