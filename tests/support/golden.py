"""Reading golden arrays and comparing tensors with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity"


@dataclass(frozen=True)
class Difference:
    """The difference between a tensor and its golden array, and the tolerance."""

    name: str
    found: float
    limit: float

    @property
    def is_too_large(self) -> bool:
        return not self.found <= self.limit


def meta(golden: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The metadata of a golden file."""
    found: dict[str, Any] = json.loads(bytes(golden["meta"]))
    return found


def picture(golden: Mapping[str, np.ndarray], name: str) -> Tensor:
    """A uint8 image (H, W, 3) of a golden file as (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(golden[name]).permute(2, 0, 1)[None].float() / 255


def sliced(tensor: Tensor, name: str) -> np.ndarray:
    """The part of a tensor that a golden array contains: its name may end in slices, [:,::4,::2,::2]."""
    found = re.search(r"\[(.*)\]$", name)
    if found is None:
        return tensor.numpy()
    slices = (re.fullmatch(r"(\d*):(?::(\d+))?", part) for part in found[1].split(","))
    return tensor[tuple(slice(int(s[1] or 0), None, int(s[2] or 1)) for s in slices if s)].numpy()


def compared(
    golden: Mapping[str, np.ndarray], stages: Mapping[str, Tensor], limits: Sequence[tuple[str, float]]
) -> list[Difference]:
    """Differences for all golden arrays that are among the stages.

    limits: (pattern, limit); the first whose pattern occurs in a name applies. In standard deviations of the golden
        array, or absolute if negative.
    """
    differences = []
    for name in golden:
        stage = name.partition("[")[0]
        if stage in stages:
            limit = next(limit for pattern, limit in limits if re.search(pattern, name))
            largest = float(np.abs(sliced(stages[stage], name).astype(np.float64) - golden[name]).max())
            relative = largest / float(golden[name].std())
            differences.append(Difference(name, largest if limit < 0 else relative, abs(limit)))
    return differences


@contextmanager
def watched(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """Record inputs and outputs of modules: name/in and name/out, call by call."""
    calls: dict[str, list[Tensor]] = {}

    def keep(name: str, value: Tensor | tuple[Tensor, ...]) -> None:
        calls.setdefault(name, []).append((value[0] if isinstance(value, tuple) else value).clone())

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            keep(f"{name}/out", output)

        before.append(module.register_forward_pre_hook(lambda _, inputs: keep(f"{name}/in", inputs)))
        return module.register_forward_hook(hook)

    before: list[torch.utils.hooks.RemovableHandle] = []
    handles = [watch(name, module) for name, module in modules.items()]
    try:
        yield calls
    finally:
        for handle in handles + before:
            handle.remove()
