from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from romacli.errors import InputError, RomacliError, UsageError
from romacli.models.mini import MiniConfig, load_mini, read_mini
from romacli.models.weights import sha256_of
from romacli.synthetic import Textures, sample_pair
from romacli.train import loop
from romacli.train.loop import Phase, TrainOptions, checkpoint_path, learning_rate_at, phase_at, train

TINY = MiniConfig(
    trunk_channels=(8, 16, 16, 32),
    trunk_blocks=(0, 0, 0, 0),
    fourier_channels=16,
    decoder_width=32,
    decoder_blocks=1,
    decoder_heads=2,
    anchors_per_side=6,
    refiner_features=(8, 8, 8),
    refiner_descriptors=(8, 8, 0),
    refiner_radius=(1, 1, 0),
    refiner_width=(16, 16, 16),
    refiner_convolutions=(1, 1, 1),
)


@pytest.fixture
def options(tmp_path, monkeypatch) -> TrainOptions:
    monkeypatch.setattr(loop, "LOG_EVERY_STEPS", 1)
    monkeypatch.setattr(loop, "WARM_UP_STEPS", 2)
    return TrainOptions(
        tmp_path / "tiny.safetensors",
        procedural=2,
        steps=20,
        small_size=64,
        size=64,
        fine_size=96,
        batch_size=2,
        workers=0,
        config=TINY,
    )


def logged(options, column):
    with options.output.with_suffix(".csv").open(encoding="utf-8") as file:
        return [float(row[column]) for row in csv.DictReader(file)]


def test_twenty_steps_on_one_pair_reduce_the_loss_and_leave_weights_that_load(options, monkeypatch):
    textures = Textures.load(None, procedural=2, seed=0)
    pair = sample_pair(textures, np.random.default_rng(1), 64)
    monkeypatch.setattr(loop, "sample_pair", lambda *_: pair)
    assert train(replace(options, fine_size=64)) == options.output
    losses = logged(options, "loss")
    assert len(losses) == 20
    assert losses[14] < 0.6 * losses[0]  # later steps match in two passes and sum more losses
    assert load_mini(options.output).config == TINY
    with safe_open(str(options.output), framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["steps"], metadata["pairs"]) == ("20", "40")
    assert json.loads(metadata["recipe"])["seed"] == 0


def test_interrupted_run_continues_where_its_checkpoint_was(options, monkeypatch):
    class Interrupted(Exception):
        pass

    step = loop.train_step

    def stop_at_six(state, *args):
        if state.step == 6:
            raise Interrupted
        return step(state, *args)

    monkeypatch.setattr(loop, "train_step", stop_at_six)
    short = replace(options, steps=8, checkpoint_minutes=0)
    with pytest.raises(Interrupted):
        train(short)
    before = torch.load(checkpoint_path(short), weights_only=True)
    monkeypatch.setattr(loop, "train_step", step)
    train(short)
    after = torch.load(checkpoint_path(short), weights_only=True)
    assert before["counts"][0] == 6
    assert after["counts"][0] == 8
    assert logged(short, "step") == list(range(1, 9))
    moved = after["network"]["tokens.weight"] - before["network"]["tokens.weight"]
    assert 0 < moved.abs().max() < 0.02  # two more steps, not a new beginning


def test_finished_run_is_not_trained_again(options):
    short = replace(options, steps=1)
    train(short)
    train(short)
    assert logged(short, "step") == [1]


def test_training_starts_from_given_weights_and_says_which(options):
    first = train(replace(options, steps=8))
    later = replace(
        options, output=options.output.with_name("later.safetensors"), start=first, seed=5, config=MiniConfig()
    )
    later = replace(later, steps=1, learning_rate=1e-9, size=64)
    train(later)
    before, after = read_mini(first).state_dict(), read_mini(later.output).state_dict()
    assert torch.equal(before["tokens.weight"], after["tokens.weight"])
    with safe_open(str(later.output), framework="pt") as file:
        assert json.loads(file.metadata()["recipe"])["start"] == sha256_of(first)


def test_checkpoint_of_another_configuration_is_refused(options):
    short = replace(options, steps=1)
    train(short)
    with pytest.raises(InputError, match="another network configuration"):
        train(replace(short, config=replace(TINY, decoder_width=64)))


def test_damaged_checkpoint_is_named(options):
    checkpoint_path(options).write_bytes(b"PK torn")
    with pytest.raises(InputError, match=r"tiny\.checkpoint\.pt cannot be read as a checkpoint"):
        train(options)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"steps": None, "minutes": 0}, "no time to train"), ({"procedural": 0}, "nothing to paint scenes with")],
)
def test_schedule_that_cannot_start_is_refused(options, change, message):
    with pytest.raises(UsageError, match=message):
        train(replace(options, **change))


def test_step_with_a_gradient_that_is_not_finite_leaves_the_weights_alone(options, monkeypatch):
    def infinite(network, *args):
        return sum(p.sum() for p in network.parameters()) * torch.inf, {}

    monkeypatch.setattr(loop, "total_loss", infinite)
    monkeypatch.setattr(loop, "MAX_SKIPPED_IN_A_ROW", 3)
    saved = []
    monkeypatch.setattr(loop, "_update_average", saved.append)
    with pytest.raises(RomacliError, match="not finite for 3 steps in a row, at step 3"):
        train(options)
    assert saved == []


def test_schedule_grows_the_pairs_and_ends_in_two_passes(options):
    options = replace(options, small_size=192, size=224, fine_size=320)
    phases = [phase_at(progress, options) for progress in (0.0, 0.5, 0.9)]
    assert phases == [Phase(192, None), Phase(224, None), Phase(320, 192)]


def test_learning_rate_warms_up_holds_and_falls():
    rates = [learning_rate_at(p, s, 1.0) for p, s in ((0, 0), (0.1, 200), (0.2, 400), (0.6, 900), (1.0, 2000))]
    np.testing.assert_allclose(rates, (0.01, 1, 1, 0.505, 0.01), atol=1e-6)
