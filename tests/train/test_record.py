from __future__ import annotations

import resource
from types import SimpleNamespace

import pytest
import torch

from romacli.errors import InputError, StoreError
from romacli.train.record import append_row
from romacli.train.state import save_checkpoint


def test_each_figure_has_its_column_and_new_ones_are_added(tmp_path):
    path = tmp_path / "run.csv"
    append_row(path, {"step": 1, "loss": 2.5})
    append_row(path, {"step": 2, "loss": 2.0, "pck3": 0.5})
    append_row(path, {"step": 3, "loss": 1.5})
    assert path.read_text() == "step,loss,pck3\n1,2.5,\n2,2.0,0.5\n3,1.5,\n"
    assert [file.name for file in tmp_path.iterdir()] == ["run.csv"]


def test_file_that_is_no_log_is_left_alone(tmp_path):
    path = tmp_path / "run.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"run\.csv is not a log of a training"):
        append_row(path, {"step": 1})
    assert path.read_bytes() == b"\xff\xfe\x00"


def test_a_checkpoint_without_room_is_told_and_the_last_one_kept(tmp_path):
    weights = SimpleNamespace(trained=lambda: {"w": torch.zeros(100_000)}, fingerprint=lambda: "", state_dict=dict)
    counts = dict.fromkeys(("step", "pairs", "elapsed_s", "skipped", "best", "validated_step"), 0)
    state = SimpleNamespace(trainable=weights, average=weights, optimizer=weights, **counts)
    save_checkpoint(state, tmp_path / "m.safetensors")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(StoreError, match="full"):
            save_checkpoint(state, tmp_path / "m.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
