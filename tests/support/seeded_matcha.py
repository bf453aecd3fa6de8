"""Deterministic weights and inputs for MATCHA's golden arrays.

As in `seeded_weights`, a tensor is uniform noise that depends only on seed, group and name. The groups are
"matcha", the fusion network, and "unet" and "vae", diffusers' networks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import torch
from support.seeded_relatives import Layout, Matrix, Rule, Spread
from support.seeded_weights import SPREAD, uniform
from torch import Tensor

F32 = np.float32
NORM = {"matcha": r"\.norm|^dec_norm", "unet": "norm", "vae": "norm"}
# (pattern, gain, zero-sum filters); the first that occurs in a name applies.
GAINS = {
    "matcha": (
        (r"^patch_embed", 0.03, False),
        (r"qkv|projq|projk|projv", 1.6, False),
        (r"\.proj\.", 0.5, False),
        (r"\.fc1\.|^fusion_.\.0\.", 1.0, False),
        (r"", 1.6, True),
    ),
    "diffusers": (
        (r"\.to_[qk]\.", 1.8, False),
        (r"\.to_out\.|\.ff\.net\.2\.|\.conv2\.|\.proj_out\.", 0.7, False),
        (r"time_emb|linear_[12]", 1.5, False),
        (r"", 1.2, False),
    ),
}


def seeded_matcha(layout: Layout, *, seed: int = 0, group: str = "matcha") -> dict[str, Tensor]:
    """Tensors for a layout of names and shapes."""
    return {name: torch.from_numpy(_array(name, shape, seed, group)) for name, shape in layout.items()}


def _array(name: str, shape: tuple[int, ...], seed: int, group: str) -> np.ndarray:
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    values = _rule(name, leaf, shape, group)(uniform(f"{seed}|{group}|{name}", math.prod(shape)), shape, leaf)
    values = values.astype(F32).reshape(shape)
    # Channels that make a wrong epsilon of a batch normalisation visible.
    if group == "matcha" and ".layer." in name:
        canaries = np.arange(shape[0]) % 13 == 5
        values[canaries] *= F32(1e-4 if leaf == "running_var" else 0.01)
    return np.ascontiguousarray(values)


def _rule(name: str, leaf: str, shape: tuple[int, ...], group: str) -> Rule:
    if leaf == "running_mean":
        return Spread(0.2)
    if leaf == "running_var":
        return lambda noise, _shape, _leaf: np.exp(F32(0.5) * SPREAD * noise)
    if leaf == "bias":
        patch = name.startswith("patch_embed")
        return Spread(0.001 if patch else 0.1 if re.search(NORM[group], name) else 0.05)
    if len(shape) == 1:
        return Spread(0.2, centre=1.0)
    gains = GAINS["matcha" if group == "matcha" else "diffusers"]
    gain, zero_sum = next((gain, zero_sum) for pattern, gain, zero_sum in gains if re.search(pattern, name))
    return Matrix(gain, zero_sum=zero_sum)


def field(name: str, shape: tuple[int, ...], seed: int, scale: float = 1.0, *, smooth: int = 0) -> Tensor:
    """An input of unit variance times `scale`, after `smooth` circular 1-2-1 passes."""
    x = (SPREAD * uniform(f"{seed}|input|{name}", math.prod(shape))).reshape(shape)
    for _ in range(smooth):
        for axis in (-1, -2):
            x = (np.roll(x, 1, axis) + F32(2) * x + np.roll(x, -1, axis)) * F32(0.25)
    if smooth:
        x = x / F32(np.sqrt(np.mean(x.astype(np.float64) ** 2)))
    return torch.from_numpy(np.ascontiguousarray(x * F32(scale), dtype=F32))


def inputs_of(shapes: Mapping[str, list[int]], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Semantic, geometric and DINOv2 features of unit length, in the shapes given by a golden file."""
    c = field("c", tuple(shapes["c"]), seed, smooth=1)
    f = field("f", tuple(shapes["f"]), seed, 1.5, smooth=1)
    dino = field("dino", tuple(shapes["dino"]), seed, smooth=1)
    return c, f, torch.nn.functional.normalize(dino, dim=1)
