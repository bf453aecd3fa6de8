"""Two processes on one CPU, as torchrun starts them."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.tiny_mini import TINY

from romacli.errors import UsageError
from romacli.networks.mini import read_mini
from romacli.train import loop
from romacli.train.loop import train
from romacli.train.options import TrainOptions
from romacli.train.ranks import Ranks, joined
from romacli.train.state import checkpoint_path

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, sys, torch
from pathlib import Path
sys.path.insert(0, "tests")
from support.tiny_mini import TINY
from romacli.train import data, record, state
from romacli.train.loop import train
from romacli.train.options import TrainOptions

record.LOG_EVERY_STEPS, state.WARM_UP_STEPS = 1, 2
output, steps, judged = Path(sys.argv[1]), int(sys.argv[2]), []
validate = lambda network: judged.append(1) or {"pck3": 0.5}
options = TrainOptions(output, procedural=1, steps=steps, sizes=(64, 64, 64), batch_size=2, workers=0, config=TINY)
run = train(options, validate=validate)
rank = os.environ["RANK"]
torch.save({"network": run.trainable.trained(), "steps": run.step, "pairs": run.pairs, "judged": len(judged)},
           output.with_name(f"rank{rank}.pt"))
"""


def train_on_two(output: Path, steps: int) -> list[dict]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(output), str(steps)],
            cwd=REPOSITORY,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    return [torch.load(output.with_name(f"rank{rank}.pt"), weights_only=True) for rank in range(2)]


def test_two_processes_train_one_network_and_one_writes(tmp_path):
    output = tmp_path / "tiny.safetensors"
    alone = TrainOptions(output, procedural=1, steps=1, sizes=(64, 64, 64), batch_size=2, workers=0, config=TINY)
    train(alone)
    first, second = train_on_two(output, steps=3)
    learned = [name for name in first["network"] if "running" not in name]  # batch norm statistics are per process
    assert all(torch.equal(first["network"][name], second["network"][name]) for name in learned)
    assert (first["steps"], first["pairs"], second["pairs"]) == (3, 2 + 8, 2 + 8)
    assert (first["judged"], second["judged"]) == (1, 0)
    stored = torch.load(checkpoint_path(output), weights_only=True)
    assert all(torch.equal(stored["network"][name], first["network"][name]) for name in first["network"])
    with output.with_suffix(".csv").open(encoding="utf-8") as file:
        assert [row["pairs"] for row in csv.DictReader(file)] == ["2", "6", "10", "10"]
    assert read_mini(output).config == TINY


def test_processes_draw_different_pairs(tmp_path, monkeypatch):
    from support.tiny_mini import TINY

    from romacli.train.options import TrainOptions

    class Enough(Exception):
        pass

    def batches(source, *, seeds: tuple, **rest):
        seen.append(seeds)
        raise Enough

    seen = []
    monkeypatch.setattr(loop, "batches", batches)
    options = TrainOptions(tmp_path / "x.safetensors", procedural=1, config=TINY)
    run = loop.restored(options, loop.MiniTrainable(options, torch.device("cpu")))
    for rank in range(2):
        with pytest.raises(Enough):
            loop._train(run, options, Ranks(rank, 2, torch.device("cpu")), None)
    assert seen[0] != seen[1]


def test_one_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with joined("cpu") as ranks:
        assert (ranks.is_first, ranks.count, ranks.agreed(0.25)) == (True, 1, 0.25)


def test_one_device_for_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("romacli.train.ranks.resolve_device", torch.device)
    with pytest.raises(UsageError, match="--device cuda:1 is one device for 2 processes"), joined("cuda:1"):
        pass
