"""MATCHA's fusion network, trained on mini's features."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from romacli.errors import UsageError, WeightsError
from romacli.eval.synthetic import matched_share
from romacli.networks.matcha import FusionConfig
from romacli.synthetic.pairs import sample_pair
from romacli.synthetic.textures import Textures
from romacli.train import record, state
from romacli.train.data import source
from romacli.train.fusion import FusionTrainable, read_fusion
from romacli.train.loop import train
from romacli.train.losses import dual_softmax_loss, flow_loss, fusion_loss, positives
from romacli.train.options import TrainOptions

TINY = FusionConfig(256, 128, 16, 16, width=32, blocks=1, heads=2, head_width=32)
SIDE = 96


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainOptions:
    monkeypatch.setattr(record, "LOG_EVERY_STEPS", 1)
    monkeypatch.setattr(state, "WARM_UP_STEPS", 2)
    output = tmp_path / "fusion.safetensors"
    return TrainOptions(
        output, model="fusion", procedural=2, steps=40, sizes=(SIDE,), batch_size=1, workers=0, config=TINY
    )


def test_steps_on_one_pair_reduce_the_loss_and_match_better_than_both_maps_joined(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = sample_pair(Textures.load(None, procedural=2, seed=0), np.random.default_rng(1), SIDE)
    monkeypatch.setattr(source, "sample_pair", lambda *_, **__: pair)
    trained = train(replace(options, learning_rate=1e-2))
    with options.output.with_suffix(".csv").open(encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 40
    assert losses[-1] < 0.5 * losses[0]
    network = trained.trainable.network.eval()
    assert matched_share(network.described, [pair]) > matched_share(network.joined, [pair]) + 0.1


def test_the_trunk_stays_and_weights_go_on_from_their_file(options: TrainOptions) -> None:
    device = torch.device("cpu")
    before = FusionTrainable(options, device)
    trunk = {name: value.clone() for name, value in before.network.trunk.state_dict().items()}
    after = train(replace(options, steps=2)).trainable.network
    assert all(torch.equal(value, trunk[name]) for name, value in after.trunk.state_dict().items())
    assert not any(name.startswith("trunk.") for name in before.trained())
    again = FusionTrainable(replace(options, start=options.output, config=None), device)
    assert again.network.fusion.config == TINY
    stored = read_fusion(options.output).state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in again.network.fusion.state_dict().items())


def test_what_does_not_fit_is_said(options: TrainOptions, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one multiple of 16"):
        train(replace(options, sizes=(100,)))
    save_file({"w": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="contains no fusion network"):
        train(replace(options, start=tmp_path / "other.safetensors"))


def test_cells_that_show_the_same_place_are_paired_one_to_one() -> None:
    truth = torch.tensor([[[-0.9, -0.9], [-0.6, -0.9]], [[0.5, 0.5], [1.5, 0.5]]])  # of cells 0 to 3; last one outside
    a, b = positives(truth, torch.ones(2, 2, dtype=torch.bool))
    assert a.tolist() == [0, 3]
    assert b.tolist() == [1, 2]  # two cells map to the first: the last counts
    assert len(positives(truth, torch.zeros(2, 2, dtype=torch.bool))[0]) == 0


def test_losses_are_those_worked_out_by_hand() -> None:
    assert dual_softmax_loss(torch.zeros(4, 4)) == pytest.approx(2 * np.log(4))
    assert dual_softmax_loss(50 * torch.eye(4)) == pytest.approx(0, abs=1e-6)
    maps = torch.nn.functional.one_hot(torch.arange(6)).float().T.reshape(6, 2, 3)  # a direction for each cell
    cells = torch.tensor([0, 5])
    queries = maps.flatten(1).T[cells]
    assert flow_loss(queries, maps, cells) == pytest.approx(0, abs=1e-5)
    assert flow_loss(queries, maps, torch.tensor([2, 4])) == pytest.approx(1.5, abs=1e-5)  # two columns off, and one


def test_pairs_that_share_too_little_teach_nothing() -> None:
    F_s, F_g = (torch.randn(2, 4, 3, 3, requires_grad=True) for _ in range(2))
    loss, _ = fusion_loss(F_s, F_g, torch.zeros(2, 3, 3, 2), torch.zeros(2, 3, 3, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not F_g.grad.any()
