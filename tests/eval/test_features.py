"""Frozen features: kernel nearest neighbours, the linear layer, the networks they come from, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.errors import UsageError, WeightsError
from romacli.eval.features.maps import FeatureMap, feature_map
from romacli.eval.features.options import StudyOptions
from romacli.eval.features.study import Encoded, encoded, judge, kernel_neighbours, train
from romacli.networks.backbones.dinov2 import DINOv2, DINOv2Config
from romacli.networks.backbones.vgg import VGG19
from romacli.networks.parts.maps import cell_centres
from romacli.networks.parts.residual import ResNet50
from romacli.networks.xfeat import XFeatDetector
from romacli.synthetic.pairs import sample_pair
from romacli.synthetic.textures import Textures

CELLS, SIDE = 12, 96


def shifted_pairs(count: int = 4) -> Encoded:
    """Pairs whose second image is the first shifted by a quarter; features are positions, then stronger noise."""
    rng = torch.Generator().manual_seed(0)
    grid, fine = cell_centres(CELLS, CELLS), cell_centres(SIDE, SIDE)
    shift = torch.tensor([0.5, 0.0])
    waves = 6 * torch.randn(2, 32, generator=rng)

    def tells(places: torch.Tensor) -> torch.Tensor:
        return torch.cat([(places @ waves).sin(), (places @ waves).cos()], -1).permute(2, 0, 1)

    noise = 3 * torch.randn(2 * count, 64, CELLS, CELLS, generator=rng)
    places = [grid + shift] * count + [grid] * count
    features = torch.cat([torch.stack([tells(each) for each in places]), noise], 1)
    warp = torch.stack([fine + shift] * count + [fine - shift] * count)
    return Encoded(features, warp, (warp.abs() < 1).all(-1))


def test_neighbours_weigh_places_by_the_exponential_of_cosines():
    one = torch.tensor([1.0, 0]).view(1, 2, 1, 1)
    other = torch.tensor([[2.0, 0], [0, 5]]).view(1, 2, 1, 2)  # cosines 1 and 0 at x = -0.5 and 0.5
    share = np.exp(1 / 0.5) / (np.exp(1 / 0.5) + 1)
    answer = kernel_neighbours(one, other, 0.5)
    assert answer.shape == (1, 1, 1, 2)
    np.testing.assert_allclose(answer.ravel().numpy(), [0.5 - share, 0], atol=1e-6)


def test_features_that_know_the_truth_are_worth_it_and_shuffled_ones_are_not():
    data, options = shifted_pairs(), StudyOptions(temperature=0.02)
    true = replace(data, features=data.features[:, :64])
    worth = judge(true, nn.Identity(), options)
    assert worth.robust > 0.99
    assert worth.error_px < 12  # cells are 37 px wide
    order = torch.randperm(CELLS**2, generator=torch.Generator().manual_seed(1))
    torn = true.features.clone()
    torn[4:] = torn[4:].flatten(2)[..., order].unflatten(2, (CELLS, CELLS))
    shuffled = judge(replace(true, features=torn), nn.Identity(), options)
    assert shuffled.robust < 0.1
    assert shuffled.error_px > 100


def test_the_layer_learns_which_features_tell_and_a_seed_gives_the_same():
    data, options = shifted_pairs(), StudyOptions(steps=60, width=32)
    plain = judge(data, nn.Identity(), options)
    layers = [train(data, options, seed) for seed in (0, 0, 1)]
    trained = judge(data, layers[0], options)
    assert trained.error_px < 0.7 * plain.error_px
    assert trained.robust > plain.robust
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert not torch.equal(layers[0].weight, layers[2].weight)


def saved(path: Path, network: nn.Module, rename: str = "") -> Path:
    state = {rename + key.removeprefix("layers.") if rename else key: v for key, v in network.state_dict().items()}
    torch.save({**state, "classifier.0.weight": torch.zeros(1)} if rename else state, path)
    return path


@pytest.mark.parametrize(
    ("name", "channels", "stride"), [("mini-8", 128, 8), ("mini-16", 256, 16), ("random-16", 256, 16)]
)
def test_minis_trunk_at_two_strides(name, channels, stride):
    images = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
    assert feature_map(name).of(images).shape == (1, channels, 64 // stride, 96 // stride)


def test_random_features_depend_on_the_seed():
    images = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    one, same, other = (feature_map("random-8", seed=seed).of(images) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_published_networks_out_of_their_files(tmp_path):
    small = DINOv2(DINOv2Config(dim=64, depth=2, heads=1, position_side=4))
    files = {
        "vgg19": (saved(tmp_path / "vgg.pth", VGG19((64, 128, 256, 512)), "features."), 512, 8),
        "resnet50": (saved(tmp_path / "resnet.pth", ResNet50()), 1024, 16),
        "dinov2": (saved(tmp_path / "dinov2.pth", small), 64, 14),
        "xfeat": (saved(tmp_path / "xfeat.pt", XFeatDetector()), 64, 8),
    }
    for name, (file, channels, stride) in files.items():
        features = feature_map(f"{name}={file}")
        side = 4 * features.multiple
        with torch.inference_mode():
            found = features.of(torch.zeros(1, 3, side, side, dtype=torch.uint8))
        assert found.shape == (1, channels, side // stride, side // stride)
    with pytest.raises(WeightsError, match="VGG19"):
        feature_map(f"vgg19={files['resnet50'][0]}")
    with pytest.raises(WeightsError, match="contains no DINOv2"):
        feature_map(f"dinov2={files['resnet50'][0]}")


def test_a_network_of_ones_own_is_fed_pictures_of_a_side_that_fits():
    sides = []

    def of(images: torch.Tensor) -> torch.Tensor:
        sides.append((images.dtype, *images.shape[-2:]))
        return images.float()[..., ::14, ::14]

    options = StudyOptions(size=64)
    pair = sample_pair(Textures.load(None, procedural=2, seed=0), np.random.default_rng(0), options.size)
    data = encoded(FeatureMap("mine", 14, of), [pair])
    assert sides == [(torch.uint8, 70, 70)]
    assert (data.features.shape, data.warp.shape) == ((2, 3, 5, 5), (2, 64, 64, 2))


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["eval", "features", *map(str, words)])


def test_the_command_tells_mean_and_deviation_of_all_seeds():
    words = ("--features", "random-16", "--pairs", 2, "--judged", 2, "--steps", 2, "--size", 64, "--repeats", 2)
    values = json.loads(run(*words, "--json", "-q").stdout)
    (row,) = values["results"]
    assert len(row["trained"]) == 2
    errors = [one["error_px"] for one in row["trained"]]
    assert row["error_px"] == {
        "mean": pytest.approx(np.mean(errors)),
        "deviation": pytest.approx(np.std(errors, ddof=1)),
    }
    text = run(*words, "-q").stdout
    assert "2 trainings of 2 steps on 2 rendered pairs of 64 px, judged by 2" in text
    assert "random-16" in text


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("dino", "Known: mini-8"),
        ("vgg19", "vgg19=FILE, torchvision's VGG19-BN weights"),
        ("random-8=x.pt", "has random weights"),
    ],
)
def test_what_cannot_be_had_is_said(word, says):
    with pytest.raises(UsageError, match=says):
        feature_map(word)
    assert "names none" in run("--features", ",").stderr
