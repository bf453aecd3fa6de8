"""The bundled model as ONNX graphs, whose output is compared by onnxruntime where it is installed."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from romacli.errors import UsageError
from romacli.matchers.onnx import export, largest_error_px
from romacli.networks.parts.local_correlation import local_correlation
from romacli.networks.parts.solve import solve_positive_definite


def test_graphs_give_the_warps_of_the_network(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    done = export("mini", tmp_path / "small.onnx")
    assert done.largest_error_px < 1e-3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small-encode.onnx", "small-match.onnx"]
    assert done.sizes == ((256, 256), (640, 640))


@pytest.mark.parametrize(("certainty", "expected"), [(0.9, 2.0), (0.1, 3.0)])
def test_warps_that_are_nowhere_certain_are_compared_everywhere(certainty: float, expected: float) -> None:
    warp, sure = torch.zeros(1, 4, 4, 2), torch.full((1, 4, 4), 0.1)
    sure[0, 0, 0] = certainty
    other = warp.numpy().copy()
    other[0, 0, 0, 0], other[0, 3, 3, 0] = 2 / 50, 3 / 50
    found = {"warp_AB": other, "certainty_AB": sure.numpy(), "warp_BA": warp.numpy(), "certainty_BA": sure.numpy()}
    assert largest_error_px([warp, sure, warp, sure], found, (100, 100)) == pytest.approx(expected)
    found["warp_BA"] = np.full_like(other, np.nan)
    assert np.isnan(largest_error_px([warp, sure, warp, sure], found, (100, 100)))


def test_what_cannot_be_exported_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"mini-sparse has no ONNX export; mini has"):
        export("mini-sparse", tmp_path / "it.onnx")
    monkeypatch.setattr("romacli.matchers.onnx.find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(UsageError, match=r"needs onnxruntime.*romacli\[onnx\]"):
        export("mini", tmp_path / "it.onnx")
    monkeypatch.setattr("romacli.matchers.onnx.find_spec", lambda name: object())
    with pytest.raises(UsageError, match="no folder"):
        export("mini", tmp_path / "gone" / "it.onnx")
    assert not list(tmp_path.iterdir())


def traced(function, *inputs):
    """The output of a function while its graph is recorded, as in an export."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(function, inputs, check_trace=False)(*inputs)


def test_systems_are_solved_without_a_factorisation() -> None:
    torch.manual_seed(0)
    tokens = torch.nn.functional.normalize(torch.randn(2, 200, 32), dim=-1)
    matrix = torch.exp((tokens @ tokens.transpose(1, 2) - 1) * 5) + 0.1 * torch.eye(200)
    right = torch.randn(2, 200, 8)

    def solve(matrix, right):
        return solve_positive_definite(matrix, right, strict=True)

    assert (traced(solve, matrix, right) - solve(matrix, right)).abs().max() < 1e-4


def test_correlation_is_the_same_in_a_graph() -> None:
    torch.manual_seed(0)
    x, y, flow = torch.randn(2, 8, 30, 30), torch.randn(2, 8, 30, 30), torch.rand(2, 2, 30, 30) * 2 - 1

    def correlate(x, y, flow):
        return local_correlation(x, y, flow, 2)

    assert torch.allclose(traced(correlate, x, y, flow), correlate(x, y, flow), atol=1e-5)
