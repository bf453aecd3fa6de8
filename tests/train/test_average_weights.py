"""The program that averages the weights of training runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.average_weights import main
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from romacli.networks.weights import sha256_of


def run(path: Path, value: float, *, steps: int, name: str = "a") -> Path:
    facts = {"layout": "mini", "steps": str(steps), "pairs": "10", "elapsed_s": "3"}
    save_file({name: torch.full((2, 3), value, dtype=torch.float16)}, path, facts)
    return path


def average(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["average_weights.py", *map(str, words)])
    main()


def test_tensors_are_weighted_by_shares_and_counts_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = run(tmp_path / "one", 1.0, steps=5), run(tmp_path / "other", 3.0, steps=7)
    output = tmp_path / "mean.safetensors"
    average(monkeypatch, output, f"{first}=0.25", f"{second}=0.75")
    (mean,) = load_file(output).values()
    assert mean.dtype == torch.float16
    assert torch.equal(mean, torch.full((2, 3), 2.5, dtype=torch.float16))
    with safe_open(str(output), framework="pt") as file:
        facts = file.metadata()
    assert [facts[name] for name in ("layout", "steps", "pairs", "elapsed_s")] == ["mini", "12", "20", "6"]
    assert json.loads(facts["mean_of"]) == [[sha256_of(first)[:16], 0.25], [sha256_of(second)[:16], 0.75]]


@pytest.mark.parametrize(("share", "name", "said"), [(0.5, "a", "add up to 1"), (0.75, "b", "other has other tensors")])
def test_wrong_shares_and_other_networks_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    share: float,
    name: str,
    said: str,
) -> None:
    first, second = run(tmp_path / "one", 1.0, steps=5), run(tmp_path / "other", 3.0, steps=7, name=name)
    with pytest.raises(SystemExit):
        average(monkeypatch, tmp_path / "mean", f"{first}=0.25", f"{second}={share}")
    assert said in capsys.readouterr().err
    assert not (tmp_path / "mean").exists()
