from __future__ import annotations

import csv
import json
import multiprocessing
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.tiny_mini import TINY

from romacli.errors import InputError, RomacliError, StoreError, UsageError
from romacli.networks.mini import load_mini, read_mini
from romacli.networks.mini_config import MiniConfig
from romacli.networks.weights import sha256_of
from romacli.synthetic.curriculum import Curriculum
from romacli.synthetic.pairs import sample_pair
from romacli.synthetic.textures import Textures
from romacli.train import loop, record, state
from romacli.train.data import source
from romacli.train.data.stream import batches
from romacli.train.loop import train
from romacli.train.mini import MiniTrainable
from romacli.train.options import TrainOptions
from romacli.train.state import best_path, checkpoint_path
from romacli.train.trainable import Phase


@pytest.fixture
def options(tmp_path, monkeypatch) -> TrainOptions:
    monkeypatch.setattr(record, "LOG_EVERY_STEPS", 1)
    monkeypatch.setattr(state, "WARM_UP_STEPS", 2)
    return TrainOptions(
        tmp_path / "tiny.safetensors",
        procedural=2,
        steps=20,
        sizes=(64, 64, 96),
        batch_size=2,
        workers=0,
        config=TINY,
    )


def logged(options, column):
    with options.output.with_suffix(".csv").open(encoding="utf-8") as file:
        return [float(row[column]) for row in csv.DictReader(file) if row[column]]


def trainable(options):
    return MiniTrainable(options, torch.device("cpu"))


def test_twenty_steps_on_one_pair_reduce_the_loss_and_leave_weights_that_load(options, monkeypatch):
    textures = Textures.load(None, procedural=2, seed=0)
    pair = sample_pair(textures, np.random.default_rng(1), 64)
    monkeypatch.setattr(source, "sample_pair", lambda *_, **__: pair)
    train(replace(options, sizes=(64, 64, 64)))
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

    def stop_at_six(run, *args):
        if run.step == 6:
            raise Interrupted
        return step(run, *args)

    monkeypatch.setattr(loop, "train_step", stop_at_six)
    short = replace(options, steps=8, checkpoint_minutes=0)
    with pytest.raises(Interrupted):
        train(short)
    before = torch.load(checkpoint_path(short.output), weights_only=True)
    monkeypatch.setattr(loop, "train_step", step)
    train(short)
    after = torch.load(checkpoint_path(short.output), weights_only=True)
    assert before["step"] == 6
    assert after["step"] == 8
    assert logged(short, "step") == list(range(1, 9))
    moved = after["network"]["tokens.weight"] - before["network"]["tokens.weight"]
    assert 0 < moved.abs().max() < 0.02  # two more steps, not a fresh start


def test_finished_run_is_not_trained_again(options):
    short = replace(options, steps=1)
    train(short)
    train(short)
    assert logged(short, "step") == [1]


def test_training_starts_from_given_weights_and_says_which(options):
    train(replace(options, steps=8))
    first = options.output
    later = replace(
        options, output=options.output.with_name("later.safetensors"), start=first, seed=5, config=MiniConfig()
    )
    later = replace(later, steps=1, learning_rate=1e-9)
    train(later)
    before, after = read_mini(first).state_dict(), read_mini(later.output).state_dict()
    assert torch.equal(before["tokens.weight"], after["tokens.weight"])
    with safe_open(str(later.output), framework="pt") as file:
        assert json.loads(file.metadata()["recipe"])["start"] == sha256_of(first)


@pytest.mark.parametrize("shared", [True, False])
def test_coarse_part_alone_learns_and_leaves_the_refiners_as_they_were(options, tmp_path, shared):
    first = replace(options, steps=1, config=replace(TINY, shared_trunk=shared))
    train(first)
    second = replace(options, output=tmp_path / "coarse.safetensors", start=first.output, part="coarse", steps=3)
    train(second)
    before, after = (read_mini(path).state_dict() for path in (first.output, second.output))
    same = {key for key in before if torch.equal(before[key], after[key])}
    fine = ("trunk.stem.", "trunk.levels.0.", "trunk.levels.1.") if shared else ("fine_trunk.",)
    kept = ("refiners.", *fine)
    assert {key for key in before if key.startswith(kept)} <= same
    learning = ("tokens.weight", "decoder.output.weight", "trunk.levels.2.0.0.weight", "trunk.levels.2.0.1.running_var")
    assert not same & {*learning}
    assert {*learning} <= before.keys()


def test_checkpoint_of_another_configuration_is_refused(options):
    short = replace(options, steps=1)
    train(short)
    with pytest.raises(InputError, match="another network or optimiser"):
        train(replace(short, config=replace(TINY, decoder_width=64)))


def test_damaged_checkpoint_is_named(options):
    checkpoint_path(options.output).write_bytes(b"PK torn")
    with pytest.raises(InputError, match=r"tiny\.checkpoint\.pt cannot be read as a checkpoint"):
        train(options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": None, "minutes": 0}, "no time to train"),
        ({"procedural": 0}, "no textures for the scenes"),
        ({"part": "fine"}, "--part fine is not known"),
        ({"part": "coarse"}, "--from"),
    ],
)
def test_schedule_that_cannot_start_is_refused(options, change, message):
    with pytest.raises(UsageError, match=message):
        train(replace(options, **change))


def test_an_output_that_cannot_be_written_is_told_before_training(options, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(loop, "train_step", lambda *_: pytest.fail("training began"))
    with pytest.raises(StoreError, match="cannot be written: .*file is a file"):
        train(replace(options, output=tmp_path / "file" / "w.safetensors"))


def test_a_folder_is_no_output(options, tmp_path):
    with pytest.raises(UsageError, match="--output .* is a folder"):
        train(replace(options, output=tmp_path))


def spoil(monkeypatch, spoilt):
    """Make the loss infinite at the steps where `spoilt` returns true."""
    step, forward = iter(range(10**6)), MiniTrainable.forward

    def spoilt_forward(self, batch, phase):
        loss, losses = forward(self, batch, phase)
        return (loss * torch.inf if spoilt(next(step)) else loss), losses

    monkeypatch.setattr(MiniTrainable, "forward", spoilt_forward)


def test_step_with_a_gradient_that_is_not_finite_leaves_the_weights_alone(options, monkeypatch):
    spoil(monkeypatch, lambda step: True)
    monkeypatch.setattr(loop, "MAX_SKIPPED_IN_A_ROW", 3)
    moved = []
    monkeypatch.setattr(torch.optim.AdamW, "step", moved.append)
    with pytest.raises(RomacliError, match="not finite for 3 steps in a row, at step 3") as caught:
        train(options)
    assert "below 0.002" in str(caught.value)
    assert moved == []


def test_single_steps_that_are_not_finite_are_skipped_and_counted(options, monkeypatch):
    spoil(monkeypatch, lambda step: step % 2 == 1)
    monkeypatch.setattr(loop, "MAX_SKIPPED_IN_A_ROW", 2)
    assert train(replace(options, steps=6)).skipped == 3
    assert logged(options, "skipped") == [0, 1, 2]  # a skipped step has nothing to log
    assert all(torch.isfinite(value).all() for value in read_mini(options.output).state_dict().values())


def test_batch_norm_recovers_from_a_batch_of_nan(options):
    run = state.restored(options, trainable(options))
    batch = source.pair_source(options, torch.device("cpu")).begun(np.random.default_rng(0), 64, 2)
    broken = (batch[0].float() * torch.nan, *batch[1:])
    assert loop.train_step(run, run.trainable, batch, Phase(64)) is not None
    assert loop.train_step(run, run.trainable, broken, Phase(64)) is None
    assert all(torch.isfinite(value).all() for value in run.trainable.network.state_dict().values())
    assert loop.train_step(run, run.trainable, batch, Phase(64)) is not None


def test_best_weights_by_validation_are_the_output_at_the_end(options):
    scores = iter([0.2, 0.7, 0.5, 0.4])
    seen, told = [], []

    def validate(network):
        assert not network.training
        seen.append(network.state_dict()["tokens.weight"].clone())
        return {"pck3": next(scores), "coarse": 1.0}

    train(replace(options, steps=4, validate_minutes=0), validate=validate, say=told.append)
    assert logged(options, "pck3") == [0.2, 0.7, 0.5, 0.4]
    assert torch.equal(read_mini(options.output).state_dict()["tokens.weight"], seen[1].half().float())
    assert best_path(options.output).read_bytes() == options.output.read_bytes()
    assert told[1] == "step 2, 4 pairs: pck3 0.700, coarse 1.000"


def test_best_weights_outlive_an_interruption(options):
    short = replace(options, steps=2, validate_minutes=0)
    train(short, validate=lambda network: {"pck3": 0.9})
    best = best_path(short.output).read_bytes()
    train(replace(short, steps=4), validate=lambda network: {"pck3": 0.1})
    assert short.output.read_bytes() == best
    assert logged(options, "pck3") == [0.9, 0.9, 0.1, 0.1]


def test_without_validation_the_last_weights_are_the_output(options):
    train(replace(options, steps=2))
    last = torch.load(checkpoint_path(options.output), weights_only=True)["average"]["tokens.weight"]
    assert torch.equal(read_mini(options.output).state_dict()["tokens.weight"], last.half().float())
    assert not best_path(options.output).exists()


def test_schedule_grows_the_pairs_and_ends_in_two_passes(options):
    phases = [trainable(replace(options, sizes=(192, 224, 320))).phase_at(progress) for progress in (0.0, 0.5, 0.9)]
    assert phases == [Phase(192, None), Phase(224, None), Phase(320, 192)]


def test_schedule_of_two_sizes_has_one_pass_throughout(options):
    phases = [trainable(replace(options, sizes=(192, 224))).phase_at(progress) for progress in (0.0, 0.5, 0.9)]
    assert phases == [Phase(192, None), Phase(224, None), Phase(224, None)]


def test_training_from_weights_has_one_pass_unless_sizes_are_given(options):
    options.output.write_bytes(trainable(options).exported({}))
    going_on = replace(options, start=options.output, sizes=None)
    assert trainable(going_on).phase_at(1.0).coarse_size is None
    assert trainable(replace(going_on, sizes=(64, 64, 96))).phase_at(1.0).coarse_size is not None
    assert trainable(replace(going_on, start=None)).phase_at(1.0).coarse_size is not None


@pytest.mark.parametrize("sizes", [(64,), (64, 64, 100), (0, 64, 64), (64,) * 4])
def test_sizes_that_do_not_fit_the_network_are_refused(options, sizes):
    with pytest.raises(UsageError, match="three multiples of 16"):
        trainable(replace(options, sizes=sizes))


def test_learning_rate_warms_up_holds_and_falls(options, monkeypatch):
    monkeypatch.setattr(state, "WARM_UP_STEPS", 100)
    run = state.restored(replace(options, learning_rate=1.0), trainable(replace(options, learning_rate=1.0)))
    rates = []
    for progress, run.step in ((0, 0), (0.1, 200), (0.2, 400), (0.6, 900), (1.0, 2000)):
        run.set_learning_rate(progress)
        rates.append(run.optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(rates, (0.01, 1, 1, 0.505, 0.01), atol=1e-6)


def test_pairs_drawn_by_a_worker_are_rendered_where_the_network_lives(options, monkeypatch):
    textures = Textures.load(None, procedural=2, seed=0)
    monkeypatch.setattr(loop, "pair_source", lambda options, device, curriculum: source.DevicePairs(textures))
    run = train(replace(options, steps=2, workers=1))
    assert (run.step, run.pairs, run.skipped) == (2, 4, 0)


@pytest.mark.parametrize("kind", [source.RenderedPairs, source.DevicePairs])
def test_a_curriculum_learns_from_the_steps_and_chooses_the_pairs(options, monkeypatch, kind):
    used, textures = [], Textures.load(None, procedural=2, seed=0)

    def watched(options, device, curriculum):
        used.append(curriculum)
        return kind(textures, hard=1.0, curriculum=curriculum)

    monkeypatch.setattr(loop, "pair_source", watched)
    monkeypatch.setattr(Curriculum, "keeps", lambda self, *_: self.asked.set() or True)
    monkeypatch.setattr(Curriculum, "asked", multiprocessing.Event(), raising=False)
    train(replace(options, steps=2, workers=1, curriculum=True))
    assert Curriculum.asked.is_set()
    assert used[0].rates != Curriculum().rates


def test_a_skipped_step_teaches_a_curriculum_nothing(options, monkeypatch):
    taught = []
    monkeypatch.setattr(Curriculum, "learn", lambda *_: taught.append(True))
    spoil(monkeypatch, lambda step: step % 2 == 1)
    train(replace(options, steps=4, curriculum=True))
    assert len(taught) == 2


def test_a_curriculum_is_of_rendered_pairs_for_mini(options):
    with pytest.raises(UsageError, match="--curriculum chooses among rendered pairs for mini"):
        train(replace(options, model="roma", curriculum=True))


def test_renderer_follows_the_device(options):
    assert isinstance(source.pair_source(options, torch.device("cpu")), source.RenderedPairs)
    assert isinstance(source.pair_source(options, torch.device("meta")), source.DevicePairs)


def test_workers_draw_pairs_of_their_own_and_hand_errors_on(options):
    class Numbers:
        def begun(self, rng, size, count):
            if size == 96:
                raise InputError("depth/7.h5 is missing.")
            return torch.tensor([rng.integers(2**40)]), torch.tensor([size]), torch.tensor([count])

    progress = multiprocessing.Value("d", 0.0)
    stream = batches(
        Numbers(),
        batch_size=2,
        workers=2,
        seeds=(0, 0, 0),
        phase_at=trainable(options).phase_at,
        progress=progress,
        pin_memory=False,
    )
    drawn = [next(stream) for _ in range(6)]
    assert len({int(number) for number, _, _ in drawn}) == 6
    assert {(int(size), int(count)) for _, size, count in drawn} == {(64, 2)}
    progress.value = 0.9
    with pytest.raises(InputError, match=r"^depth/7\.h5 is missing\.$"):
        list(islice(stream, 100))
