from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.small_roma import SMALL, small_checkpoints

from romacli.errors import UsageError, WeightsError
from romacli.eval.synthetic import evaluate_matcher, validation_pairs
from romacli.matchers.adapters import roma
from romacli.networks.roma import RoMa
from romacli.networks.weights import read_state_dict
from romacli.synthetic.pairs import sample_pair
from romacli.synthetic.textures import Textures
from romacli.train import loop, record, state
from romacli.train.data import source
from romacli.train.loop import train
from romacli.train.options import TrainOptions
from romacli.train.roma import RoMaTrainable
from romacli.train.state import checkpoint_path
from romacli.train.trainable import Phase

SIDE = 56


@pytest.fixture
def options(tmp_path, monkeypatch) -> TrainOptions:
    monkeypatch.setattr(record, "LOG_EVERY_STEPS", 1)
    monkeypatch.setattr(state, "WARM_UP_STEPS", 2)
    roma, dinov2 = small_checkpoints()
    save_file({name: value.contiguous() for name, value in dinov2.items()}, tmp_path / "dinov2.safetensors")
    save_file({name: value.contiguous() for name, value in roma.items()}, tmp_path / "roma.safetensors")
    return TrainOptions(
        tmp_path / "tiny.safetensors",
        model="roma",
        procedural=2,
        steps=15,
        sizes=(SIDE,),
        batch_size=2,
        learning_rate=3e-3,
        workers=0,
        config=SMALL,
        dinov2=tmp_path / "dinov2.safetensors",
    )


@pytest.fixture
def trainable(options) -> RoMaTrainable:
    torch.manual_seed(0)
    return RoMaTrainable(options, torch.device("cpu"))


def batch(options):
    return source.pair_source(options, torch.device("cpu")).begun(np.random.default_rng(0), SIDE, 2)


def test_fifteen_steps_on_one_pair_reduce_the_loss_and_leave_weights_that_match(options, monkeypatch):
    pair = sample_pair(Textures.load(None, procedural=2, seed=0), np.random.default_rng(1), SIDE)
    monkeypatch.setattr(source, "sample_pair", lambda *_, **__: pair)
    train(options)
    with options.output.with_suffix(".csv").open(encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.8 * losses[0]
    found = RoMa.from_checkpoints(read_state_dict(options.output), read_state_dict(options.dinov2), config=SMALL)
    image = torch.zeros(1, 3, SIDE, SIDE)
    assert found.match(found.encode(image), found.encode(image)).warp_AB.shape == (1, SIDE, SIDE, 2)


def test_dinov2_is_neither_moved_nor_stored(options):
    state_before = read_state_dict(options.dinov2)
    run = state.restored(options, RoMaTrainable(options, torch.device("cpu")))
    loop.train_step(run, run.trainable, batch(options), Phase(SIDE))
    for name, value in run.trainable.network.dinov2.state_dict().items():
        assert torch.equal(value, state_before[name])
    assert run.average.network.dinov2.cls_token is run.trainable.network.dinov2.cls_token
    state.save_checkpoint(run, options.output)
    stored = torch.load(checkpoint_path(options.output), weights_only=True)
    assert not [name for name in (*stored["network"], *stored["average"]) if name.startswith("dinov2.")]


def gradients(trainable, wanted, options):
    """The parts of the network that losses with given names reach."""
    trainable.zero_grad()
    _, losses = trainable(batch(options), Phase(SIDE))
    sum(value for name, value in losses.items() if name in wanted).backward()
    reached = [
        name for name, value in trainable.network.named_parameters() if value.grad is not None and value.grad.any()
    ]
    parts = {
        ".".join(name.split(".")[:2]) if name.startswith(("refiners", "projections")) else name.split(".")[0]
        for name in reached
    }
    return parts


def test_gradients_stay_within_their_stage(trainable, options):
    coarse = {"decoder", "gaussian_process", "projections.16"}
    assert gradients(trainable, {"anchors", "certainty"}, options) == coarse
    assert gradients(trainable, {"warp16"}, options) == {"refiners.16", "projections.16"}
    assert gradients(trainable, {"warp4", "certainty4"}, options) == {"refiners.4", "projections.4", "vgg"}
    assert gradients(trainable, {"certainty1"}, options) == {"refiners.1", "projections.1", "vgg"}


def test_losses_of_both_directions_have_every_stage(trainable, options):
    loss, losses = trainable(batch(options), Phase(SIDE))
    stages = [f"{kind}{stride}" for stride in (16, 8, 4, 2, 1) for kind in ("warp", "certainty")]
    assert list(losses) == ["anchors", "certainty", *stages]
    assert loss.item() == pytest.approx(sum(value.item() for value in losses.values()), rel=1e-5)


def test_half_precision_hardly_changes_the_loss(trainable, options):
    full, _ = trainable(batch(options), Phase(SIDE))
    trainable.precision = "bfloat16"
    half, _ = trainable(batch(options), Phase(SIDE))
    half.backward()
    assert half.item() == pytest.approx(full.item(), rel=0.05)
    assert all(value.dtype == torch.float32 for value in trainable.trained().values() if value.is_floating_point())


def test_encoder_learns_at_a_twentieth_and_all_at_a_tenth_in_the_end(options):
    trainable = RoMaTrainable(replace(options, learning_rate=None, batch_size=16), torch.device("cpu"))
    rest, encoder = trainable.parameter_groups()
    assert (rest["lr"], encoder["lr"]) == pytest.approx((2e-4, 1e-5))
    assert {id(value) for value in encoder["params"]} == {id(value) for value in trainable.network.vgg.parameters()}
    assert (trainable.rate_at(0.89), trainable.rate_at(0.95)) == (1.0, 0.1)


def test_training_starts_from_published_weights_or_vgg_features(options):
    path = options.output.with_name("roma.safetensors")
    first = RoMaTrainable(replace(options, start=path), torch.device("cpu")).network.state_dict()
    assert torch.equal(first["decoder.to_out.weight"], read_state_dict(path)["decoder.embedding_decoder.to_out.weight"])
    features = {
        name.replace("encoder.cnn.layers", "features"): value
        for name, value in read_state_dict(path).items()
        if name.startswith("encoder.cnn.layers.")
    }
    save_file({**features, "classifier.0.weight": torch.zeros(2, 2)}, options.output.with_name("vgg.safetensors"))
    second = RoMaTrainable(replace(options, vgg=options.output.with_name("vgg.safetensors")), torch.device("cpu"))
    assert torch.equal(second.network.vgg.layers[0].weight, first["vgg.layers.0.weight"])
    assert not torch.equal(second.network.decoder.to_out.weight, first["decoder.to_out.weight"])


def test_files_that_do_not_fit_are_named(options, monkeypatch):
    monkeypatch.setenv("ROMACLI_WEIGHTS_DIR", str(options.output.parent / "none"))
    with pytest.raises(WeightsError, match="models download roma-outdoor"):
        train(replace(options, dinov2=None))
    with pytest.raises(WeightsError, match=r"do not fit VGG19-BN: .* missing"):
        train(replace(options, vgg=options.dinov2))
    with pytest.raises(WeightsError, match=r"those of DINOv2, not of RoMa"):
        train(replace(options, start=options.dinov2))


def test_network_in_training_is_judged_as_a_matcher(trainable):
    pairs = validation_pairs(Textures.load(None, procedural=1, seed=0), 1, size=SIDE)
    figures = evaluate_matcher(roma.in_training(trainable.copied().network, size=(SIDE, SIDE)), pairs).figures
    assert next(iter(figures)) == "pck3"
    assert 0 <= figures["pck3"] <= figures["pck5"] <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "dkm"}, "--model dkm is not known. Known: mini, roma."),
        ({"model": "mini"}, "parts of RoMa, not of mini"),
        ({"sizes": (192, 224, 320)}, "one multiple of 56"),
        ({"sizes": (500,)}, "one multiple of 56"),
    ],
)
def test_options_that_do_not_fit_the_network_are_refused(options, change, message):
    with pytest.raises(UsageError, match=message):
        train(replace(options, **change))
