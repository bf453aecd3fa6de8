from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from support.small_roma import SMALL, small_checkpoints
from support.tiny_mini import TINY

from romacli.errors import UsageError
from romacli.networks.mini import Mini, load_mini
from romacli.networks.mini_config import config_from_json, config_to_json
from romacli.networks.roma import PUBLISHED, RoMa
from romacli.networks.weights import read_state_dict
from romacli.train import state
from romacli.train.data import source
from romacli.train.loop import train, train_step
from romacli.train.mini import MiniTrainable
from romacli.train.options import TrainOptions
from romacli.train.roma import RoMaTrainable
from romacli.train.setups import SETUPS, mini_config, roma_config
from romacli.train.trainable import Phase

SIDE = 56
OF_MINI = [name for name in SETUPS if name not in ("III", "V")]
# At the paper's size: trained parameters in millions.
MILLIONS = {"I": 47.9, "II": 49.4, "III": 58.5, "IV": 115.6, "V": 107.1, "VI": 111.3, "VII": 111.3, "VIII": 51.55}


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    path = tmp_path_factory.mktemp("dinov2") / "dinov2.safetensors"
    save_file({name: value.contiguous() for name, value in small_checkpoints()[1].items()}, path)
    return path


@pytest.fixture(scope="module")
def batch():
    options = TrainOptions("unused", procedural=2)
    return source.pair_source(options, torch.device("cpu")).begun(np.random.default_rng(0), SIDE, 2)


def options_of(tmp_path, setup, **changes):
    return TrainOptions(
        tmp_path / "weights.safetensors", model="roma", setup=setup, sizes=(SIDE,), config=SMALL, **changes
    )


@pytest.mark.parametrize("name", SETUPS)
def test_roma_of_every_row_takes_a_step_and_its_file_makes_the_same_network(name, dinov2, batch, tmp_path):
    torch.manual_seed(0)
    asked = options_of(tmp_path, name, dinov2=dinov2 if SETUPS[name].coarse == "dinov2" else None)
    run = state.restored(asked, RoMaTrainable(asked, torch.device("cpu")))
    losses = train_step(run, run.trainable, batch, Phase(SIDE))
    assert losses is not None
    assert all(torch.isfinite(value) for value in losses.values())
    content = run.trainable.exported({})
    (tmp_path / "made.safetensors").write_bytes(content)
    with safe_open(str(tmp_path / "made.safetensors"), framework="pt") as file:
        config = SMALL.varied(**json.loads(file.metadata()["parts"]))
    assert config == roma_config(SETUPS[name], SMALL)
    found = RoMa.from_checkpoints(
        load_tensors(content), read_state_dict(dinov2) if SETUPS[name].coarse == "dinov2" else {}, config=config
    )
    image = torch.zeros(1, 3, SIDE, SIDE)
    assert found.match(found.encode(image), found.encode(image)).warp_AB.shape == (1, SIDE, SIDE, 2)


@pytest.mark.parametrize("name", SETUPS)
def test_rows_at_the_papers_size_have_their_parts(name):
    with torch.device("meta"):
        network = RoMa(roma_config(SETUPS[name], PUBLISHED))
    trained = sum(value.numel() for key, value in network.named_parameters() if not key.startswith("dinov2."))
    assert trained / 1e6 == pytest.approx(MILLIONS[name], abs=0.06)


def test_the_seventh_row_is_roma():
    assert roma_config(SETUPS["VII"], PUBLISHED) == PUBLISHED


def test_rows_differ_from_the_one_before_in_what_they_are_about():
    rows = list(SETUPS.values())
    changed = [[key for key in vars(a) if vars(a)[key] != vars(b)[key]] for a, b in zip(rows, rows[1:], strict=False)]
    assert changed == [["fine"], ["fine"], ["transformer"], ["coarse"], ["classifies"], ["robust"], ["transformer"]]


@pytest.mark.parametrize("name", OF_MINI)
def test_mini_of_a_row_learns_and_loads_again(name, tmp_path):
    asked = TrainOptions(
        tmp_path / "mini.safetensors", setup=name, procedural=2, steps=2, sizes=(64, 64, 64), batch_size=2,
        workers=0, config=TINY,
    )  # fmt: skip
    train(asked)
    found = load_mini(asked.output)
    assert found.config == mini_config(name, TINY)
    image = torch.zeros(1, 3, 64, 64)
    warp = found.match(found.encode(image, image), found.encode(image, image)).warp_AB
    assert warp.shape == (1, 32, 32, 2)
    assert MiniTrainable(asked, torch.device("cpu")).robust == SETUPS[name].robust


def test_mini_without_a_row_is_stored_as_before():
    assert "transformer" not in json.loads(config_to_json(TINY))
    other = replace(TINY, transformer=False, classifies=False)
    assert config_from_json(config_to_json(other)) == other


def test_trunks_of_their_own_share_nothing():
    network = Mini(mini_config("II", TINY)).eval()
    image = torch.randn(1, 3, 64, 64)
    before = network.encode(image)
    for value in network.fine_trunk.parameters():
        value.data.add_(0.1)
    after = network.encode(image)
    assert torch.equal(before["tokens"], after["tokens"])
    assert not torch.equal(before["coarse_8_features"], after["coarse_8_features"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"setup": "IX"}, "IX is not known.*VIII"),
        ({"setup": "III", "model": "mini"}, "VGG19.*--model roma"),
        ({"setup": "V", "model": "mini"}, "DINOv2.*--model roma"),
        ({"setup": "VII", "model": "fusion"}, "do not include fusion"),
        ({"setup": "II", "vgg": "vgg.pth"}, "--vgg is not used by setup II"),
        ({"setup": "IV", "dinov2": "dinov2.pth"}, "--dinov2 is not used by setup IV"),
        ({"setup": "V", "resnet": "resnet.pth"}, "--resnet is not used by setup V"),
    ],
)
def test_what_a_row_does_not_have_is_refused(changes, message, tmp_path):
    asked = replace(options_of(tmp_path, None), **changes)
    if asked.model == "mini":
        asked = replace(asked, config=TINY, sizes=(64, 64, 64))
    with pytest.raises(UsageError, match=message):
        train(asked)
