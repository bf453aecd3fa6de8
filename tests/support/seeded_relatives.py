"""Deterministic weights for the golden arrays of RoMa's relatives.

As in `seeded_weights`, a tensor is uniform noise that depends only on seed, group and name. How it is used is
given by one table per group: the first row whose pattern occurs in the name applies.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from support.seeded_weights import SPREAD, uniform

F32 = np.float32
Layout = Mapping[str, tuple[int, ...]]
CANARIES = (13, 5)  # channels with this remainder get tiny variances, so that a wrong epsilon shows


@dataclass(frozen=True)
class Matrix:
    """Weights of standard deviation gain / sqrt(inputs), optionally with zero-sum filters and scaled rows."""

    gain: float
    zero_sum: bool = False
    rows: tuple[float, ...] = ()
    transposed: bool = False

    def __call__(self, noise: np.ndarray, shape: tuple[int, ...], leaf: str) -> np.ndarray:
        rows = noise.reshape(shape[0], -1)
        inputs = shape[0] if self.transposed else rows.shape[1]
        weights = F32(self.gain * math.sqrt(3.0) / math.sqrt(inputs)) * rows
        if self.zero_sum:
            weights = weights - weights.mean(axis=1, keepdims=True, dtype=np.float64).astype(F32)
        if self.rows:
            weights = weights * np.repeat(np.array(self.rows, F32), shape[0] // len(self.rows))[:, None]
        return weights


@dataclass(frozen=True)
class Spread:
    """Values with one standard deviation around a centre, optionally scaled differently in thirds of the tensor."""

    deviation: float
    centre: float = 0.0
    thirds: tuple[float, ...] = (1.0,)
    round_root: bool = True

    def __call__(self, noise: np.ndarray, shape: tuple[int, ...], leaf: str) -> np.ndarray:
        if self.centre:
            return F32(self.centre) * (F32(1) + F32(self.deviation) * noise)
        scale = F32(self.deviation * math.sqrt(3.0)) if self.round_root else F32(self.deviation)
        return scale * noise * np.repeat(np.array(self.thirds, F32), -(-noise.size // len(self.thirds)))[: noise.size]


@dataclass(frozen=True)
class BatchNorm:
    """All four tensors of a normalisation, optionally with scaled weight and bias."""

    scale: float = 1.0
    canaries: bool = True

    def __call__(self, noise: np.ndarray, shape: tuple[int, ...], leaf: str) -> np.ndarray:
        canary = (np.arange(noise.size) % CANARIES[0] == CANARIES[1]) & self.canaries
        if leaf == "running_mean":
            return np.where(canary, F32(0.01 * math.sqrt(3.0)) * noise, F32(0.2 * math.sqrt(3.0)) * noise)
        if leaf == "running_var":
            return np.exp(F32(0.5) * SPREAD * noise) * np.where(canary, F32(1e-4), F32(1))
        if leaf == "weight":
            return (F32(1) + F32(0.2) * noise) * F32(self.scale) * np.where(canary, F32(1e-2), F32(1))
        return F32(0.1 * math.sqrt(3.0) * self.scale) * noise


@dataclass(frozen=True)
class Constant:
    """Values fixed by the design rather than random."""

    values: Callable[[int], np.ndarray]

    def __call__(self, noise: np.ndarray, shape: tuple[int, ...], leaf: str) -> np.ndarray:
        return self.values(noise.size)


Rule = Callable[[np.ndarray, tuple[int, ...], str], np.ndarray]
NORM_WEIGHT, NORM_BIAS = Spread(0.2, centre=1.0), Spread(0.1)

TINY: Sequence[tuple[str, Rule]] = (
    (r"running_", BatchNorm(canaries=False)),
    (r"skip1\.1\.bias$", Spread(0.1)),
    (r"bias$", Spread(0.05)),
    (r"block1\.0\.layer\.0\.weight$|skip1", Matrix(1.0)),
    (r"", Matrix(1.6, zero_sum=True)),
)
DKM: Sequence[tuple[str, Rule]] = (
    (r"^encoder\.net\.conv1\.weight$", Matrix(1.4)),
    (r"^encoder\.net\.fc\.weight$", Spread(0.05)),
    (r"^encoder\.net\.fc\.bias$", Spread(0.05)),
    (r"^encoder\.net\..*(conv\d|downsample\.0)\.weight$", Matrix(1.4, zero_sum=True)),
    (r"^encoder\.net\..*bn3\.(weight|bias)$", BatchNorm(scale=0.5)),
    (r"^encoder\.net\..*downsample\.1\.(weight|bias)$", BatchNorm(scale=0.7)),
    (r"^encoder\.net\.", BatchNorm()),
    (r"pos_conv\.bias$", Spread(0.6, round_root=False)),
    (r"pos_conv\.", Matrix(0.6)),
    (r"\.bn\.|conv_refiner\..*\.1\.\w+$", BatchNorm()),
    (r"^decoder\.proj\..*bias$", Spread(0.8)),
    (r"bias$", Spread(0.05)),
    (r"^decoder\.proj\.", Matrix(1.4, zero_sum=True)),
    (r"terminal_module", Matrix(1.0, zero_sum=True, rows=(3.0, 2.0, 2.0))),
    (r"disp_emb", Matrix(2.0)),
    (r"out_conv", Matrix(1.0, rows=(0.5, 2.5, 2.5))),
    (r"conv_refiner\..*\.3\.weight$", Matrix(1.4, zero_sum=True)),
    (r"rrb_\w\.\d+\.conv3|rrb_u\.\d+\.conv1", Matrix(1.2, zero_sum=True)),
    (r"rrb_|cab", Matrix(1.2)),
    (r"", Matrix(1.0)),
)
ROMAV2: Sequence[tuple[str, Rule]] = (
    (r"periods$", Constant(lambda n: bfloat16((100.0 ** (np.arange(n) / n)).astype(F32)))),
    (r"bias_mask$", Constant(lambda n: np.repeat(np.array([1, 0, 1], F32), n // 3))),
    (r"matcher\.scale$", Constant(lambda n: np.ones(n, np.int64))),
    (r"matcher\.temp$", Constant(lambda n: np.full(n, 0.1, F32))),
    (r"matcher\.omega$", Spread(2 * math.pi)),
    # DINOv3
    (r"^f\..*(cls_token|storage_tokens|mask_token)$", Spread(0.05)),
    (r"^f\..*gamma$", Spread(0.5, centre=0.2)),
    (r"^(f|matcher\.mv_vit)\..*norm\d?\.weight$|^matcher\.head\.norm\.weight$", NORM_WEIGHT),
    (r"^(f|matcher\.mv_vit)\..*norm\d?\.bias$|^matcher\.head\.norm\.bias$", NORM_BIAS),
    (r"^f\.patch_embed\..*bias$", Spread(0.003)),
    (r"^f\..*qkv\.bias$", Spread(0.03, thirds=(1, 16, 1))),
    (r"^f\..*bias$", Spread(0.03)),
    (r"^f\.patch_embed\.", Matrix(0.05)),
    (r"^f\..*attn\.qkv\.", Matrix(2.0)),
    (r"^f\..*attn\.proj\.", Matrix(0.4)),
    # the transformer of both views
    (r"mv_vit\.output_projector\.bias$", Spread(0.1)),
    (r"mv_vit\..*qkv\.bias$", Spread(0.1)),
    (r"mv_vit\.projector\.bias$", Spread(0.003)),
    (r"mv_vit\..*bias$", Spread(0.03)),
    (r"mv_vit\.projector\.weight$", Matrix(0.03)),
    (r"mv_vit\..*qkv\.weight$", Matrix(1.0, rows=(1.4, 1.4, 3.0))),
    (r"mv_vit\..*attn\.proj\.", Matrix(0.3)),
    (r"^(f|matcher\.mv_vit)\..*fc2\.", Matrix(2.0, zero_sum=True)),
    (r"^(f|matcher\.mv_vit)\.", Matrix(1.0)),
    # the head
    (r"^matcher\.head\..*bias$", Spread(0.05)),
    (r"resize_layers\.[01]\.", Matrix(1.0, transposed=True)),
    (r"resConfUnit\d\.conv1\.", Matrix(1.4, zero_sum=True)),
    (r"resConfUnit\d\.", Matrix(1.0, zero_sum=True)),
    (r"output_conv2\.0\.", Matrix(1.4)),
    (r"output_conv2\.2\.", Matrix(1.0, zero_sum=True, rows=(0.7, 0.7, 2.0))),
    (r"^matcher\.head\.", Matrix(1.0)),
    # fine features and refiners
    (r"^refiner_features\.layers\.0\.weight$", Matrix(1.4)),
    (r"^refiner_features\.layers\.(0|3|7|10|14|17|20|23)\.bias$", Spread(0.05)),
    (r"^refiner_features\.layers\.(3|7|10|14|17|20|23)\.weight$", Matrix(1.6, zero_sum=True)),
    (r"^refiner_features\.|\.norm\.", BatchNorm()),
    (r"bias$", Spread(0.05)),
    (r"\.proj\.", Matrix(0.7, zero_sum=True)),
    (r"conv_pointwise", Matrix(1.4, zero_sum=True)),
    (r"disp_emb", Matrix(2.0)),
    (r"warp_head", Matrix(2.5)),
    (r"confidence_head", Matrix(1.0, rows=(0.5, 1.0, 1.0, 1.0))),
    (r"", Matrix(1.0)),
)
TABLES = {"tiny": TINY, "dkm": DKM, "romav2": ROMAV2}


def seeded_relative(layout: Layout, *, group: str, seed: int = 6) -> dict[str, torch.Tensor]:
    """Tensors for a layout of names and shapes; `group` is "tiny", "dkm" or "romav2"."""
    return {name: torch.from_numpy(_array(name, shape, group=group, seed=seed)) for name, shape in layout.items()}


def published(
    net: torch.nn.Module, name_of: Callable[[str], str], group: str, **more: tuple
) -> dict[str, torch.Tensor]:
    """The same for a network, under its published names; more: shapes of additional tensors in its file."""
    layout = {name_of(name): tuple(value.shape) for name, value in net.state_dict().items()}
    return seeded_relative({**layout, **more}, group=group)


def _array(name: str, shape: tuple[int, ...], *, group: str, seed: int) -> np.ndarray:
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    noise = uniform(f"{seed}|{group}|{name}", math.prod(shape))
    rule = next(rule for pattern, rule in TABLES[group] if re.search(pattern, name))
    values = np.asarray(rule(noise, shape, leaf))
    if values.dtype != np.int64:
        values = values.astype(F32)
    if group == "romav2" and name.startswith("f."):
        values = bfloat16(values)
    return np.ascontiguousarray(values).reshape(shape)


def bfloat16(values: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 values, as float32."""
    return torch.from_numpy(np.ascontiguousarray(values)).bfloat16().float().numpy()


def digest(state: Mapping[str, torch.Tensor], *, absolute: bool) -> str:
    """A short hash of all sums, and of the sums of absolute values, as stored in the golden files."""
    sha = hashlib.sha256()
    for name in sorted(state):
        values = state[name].numpy().astype(np.float64)
        sha.update(name.encode() + np.float64(values.sum()).round(3).tobytes())
        if absolute:
            sha.update(f"{np.abs(values).sum():.5g}".encode())
    return sha.hexdigest()[:16]
