"""Deterministic weights for networks whose published weights are not available, used for the golden arrays.

Each tensor depends only on (seed, group, name, shape). The first 16 bytes of SHA-256("seed|group|name") key a
Philox generator; the upper 24 bits of every 32 are a uniform number in [-1, 1). How it is used depends on the role of
the tensor; the scales keep a random network's activations in a useful range and make wrong epsilons visible (one
normalisation channel in 13 gets a tiny variance).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch

SPREAD = np.float32(math.sqrt(3.0))  # of a uniform variable with standard deviation 1

# (part of a name, gain, zero-sum filters); the first that fits applies. Filters that read the output of a ReLU
# sum to zero, or its positive mean would swamp the variation from pixel to pixel.
DINOV2_GAINS = (
    ("patch_embed", 0.05, False),
    (".attn.qkv.", 2.0, False),
    (".attn.proj.", 0.4, False),
    (".fc2.", 2.0, True),
    ("", 1.0, False),
)
ROMA_GAINS = (
    ("encoder.cnn.layers.0.", 1.4, False),
    ("encoder.cnn.", 1.6, True),
    (".pos_conv.", 0.6, False),
    (".disp_emb.", 2.0, False),
    ("decoder.proj.16.", 1.0, False),
    ("decoder.proj.", 1.4, True),
    (".to_out.", 0.5, False),
    (".attn.qkv.", 2.0, False),
    (".attn.proj.", 0.4, False),
    (".fc2.", 2.0, True),
    (".fc1.", 1.0, False),
    (".3.weight", 1.4, True),  # the pointwise convolution of a refiner's block
    ("", 1.0, False),
)


def seeded_state_dict(layout: Mapping[str, tuple[int, ...]], *, seed: int, group: str) -> dict[str, torch.Tensor]:
    """Tensors for a layout of names and shapes; `group` is "roma" or "dinov2"."""
    return {name: torch.from_numpy(seeded_array(name, shape, seed=seed, group=group)) for name, shape in layout.items()}


def digest(state: Mapping[str, torch.Tensor]) -> str:
    """A short hash of all sums, as stored in the golden files: it shows that a generator has drifted."""
    sha = hashlib.sha256()
    for name in sorted(state):
        total = np.float64(state[name].numpy().astype(np.float64).sum()).round(3)
        sha.update(name.encode() + total.tobytes())
    return sha.hexdigest()[:16]


def seeded_array(name: str, shape: tuple[int, ...], *, seed: int, group: str) -> np.ndarray:
    """The array of one tensor: float32, or int64 zero for a batch counter."""
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    noise = uniform(f"{seed}|{group}|{name}", math.prod(shape))
    if len(shape) > 1 and leaf == "weight":
        values = _matrix(name, noise.reshape(shape[0], -1), DINOV2_GAINS if group == "dinov2" else ROMA_GAINS)
    else:
        values = _vector(name, leaf, noise, of_dinov2=group == "dinov2")
    return np.ascontiguousarray(values, dtype=np.float32).reshape(shape)


def uniform(key: str, count: int) -> np.ndarray:
    """`count` float32 values in [-1, 1), exact in every bit."""
    philox = np.random.Philox(key=int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little"))
    pieces = philox.random_raw((count + 1) // 2).astype("<u8").view("<u4")[:count]
    return (pieces >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)


def _matrix(name: str, noise: np.ndarray, gains: tuple[tuple[str, float, bool], ...]) -> np.ndarray:
    gain, zero_sum = next((gain, zero_sum) for part, gain, zero_sum in gains if part in name)
    weight = noise * np.float32(gain * math.sqrt(3.0) / math.sqrt(noise.shape[1]))
    if zero_sum:
        weight -= weight.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    if name.endswith("out_conv.weight"):  # flows should leave the image here and there, certainties not saturate
        weight *= np.array([[2.5], [2.5], [0.5]], np.float32)
    return weight


def _vector(name: str, leaf: str, noise: np.ndarray, *, of_dinov2: bool) -> np.ndarray:
    layer_norm = name.startswith("norm") or ".norm" in name
    sensitive = np.zeros(noise.size, bool) if of_dinov2 or layer_norm else np.arange(noise.size) % 13 == 5
    if leaf == "running_mean":
        return np.float32(0.2) * SPREAD * noise * np.where(sensitive, np.float32(0.05), np.float32(1))
    if leaf == "running_var":
        return np.exp(np.float32(0.5) * SPREAD * noise) * np.where(sensitive, np.float32(1e-4), np.float32(1))
    if leaf == "gamma":
        return np.float32(0.2) * (1 + np.float32(0.5) * noise)
    if leaf in ("pos_embed", "cls_token", "mask_token"):
        return np.float32(0.05) * SPREAD * noise
    if leaf == "bias":
        return _bias_scale(name, layer_norm=layer_norm, of_dinov2=of_dinov2) * noise
    weight = (1 + np.float32(0.2) * noise) * np.where(sensitive, np.float32(1e-2), np.float32(1))
    return weight * np.float32(0.15) if name == "decoder.proj.16.1.weight" else weight


def _bias_scale(name: str, *, layer_norm: bool, of_dinov2: bool) -> np.float32:
    if ".pos_conv." in name:
        return np.float32(0.6)
    if name == "decoder.proj.16.1.bias":
        return np.float32(0.06) * SPREAD
    scale = 0.1 if layer_norm or name.endswith(".1.bias") else 0.05
    if of_dinov2 or "embedding_decoder.blocks." in name:
        scale *= 0.3
    return np.float32(scale * (0.2 if name == "patch_embed.proj.bias" else 1)) * SPREAD
