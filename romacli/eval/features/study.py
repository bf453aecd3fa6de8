"""Table 1 of the RoMa paper: a single linear layer on frozen features, then kernel nearest neighbours.

Source: Edstedt et al., RoMa (arXiv 2305.15404), section 3.1 and appendix A. The predicted position of a cell of A is
the mean of all positions in B, weighted by the softmax of cosine similarity over a temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from romacli.eval.features.maps import FeatureMap
from romacli.eval.features.options import StudyOptions
from romacli.eval.synthetic import validation_pairs, validation_textures
from romacli.geometry.ground_truth import ground_truth_at
from romacli.networks.parts.maps import cell_centres
from romacli.synthetic.batch import stacked
from romacli.synthetic.curriculum import COARSE_LIMIT
from romacli.synthetic.pairs import SyntheticPair, sample_pair
from romacli.synthetic.textures import Textures

PROCEDURAL = 40
_SIDE = 448  # px, side at which errors are measured, as in the paper
_BATCH = 4
_ENCODED_AT_ONCE = 8
_RATE = 1e-3

Say = Callable[[str], None]


@dataclass(frozen=True)
class Worth:
    """Mean error in px at a side of 448, and the share of visible pixels with errors below 32 px."""

    error_px: float
    robust: float


@dataclass(frozen=True)
class Encoded:
    """Frozen features (2N, C, h, w) of all first, then all second pictures, with the true warps."""

    features: Tensor
    warp: Tensor
    visible: Tensor


def encoded(features: FeatureMap, pairs: Sequence[SyntheticPair]) -> Encoded:
    """Encode every picture once, resized to the multiple that the network needs."""
    images, warp, visible = stacked(pairs)
    side = images.shape[-1]
    fitting = max(features.multiple, round(side / features.multiple) * features.multiple)
    if fitting != side:
        resized = F.interpolate(images.float(), (fitting, fitting), mode="bilinear", antialias=True)
        images = resized.round().clamp(0, 255).to(torch.uint8)
    with torch.inference_mode():
        maps = torch.cat([features.of(part) for part in images.split(_ENCODED_AT_ONCE)])
    return Encoded(maps.clone(), warp, visible)


def kernel_neighbours(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """The predicted positions in B, (B, h, w, 2) normalised, from features (B, C, h, w) and (B, C, h', w')."""
    a, b = (F.normalize(each.flatten(2), dim=1) for each in (one, other))
    weights = (torch.einsum("bcn,bcm->bnm", a, b) / temperature).softmax(-1)
    places = cell_centres(*other.shape[-2:]).reshape(-1, 2)
    return (weights @ places).unflatten(1, one.shape[-2:])


def train(data: Encoded, options: StudyOptions, seed: int) -> nn.Conv2d:
    """Train a linear layer by the mean distance of the predicted positions from the truth where visible."""
    torch.manual_seed(seed)
    layer = nn.Conv2d(data.features.shape[1], options.width, 1)
    optimiser = torch.optim.Adam(layer.parameters(), _RATE)
    rng = np.random.default_rng(seed)
    count, shape = len(data.features) // 2, (data.features.shape[2], data.features.shape[3])
    for _ in range(options.steps):
        first = torch.from_numpy(rng.choice(count, min(_BATCH, count), replace=False))
        if rng.random() < 0.5:  # either direction
            first = first + count
        second = (first + count) % (2 * count)
        truth, seen = ground_truth_at(data.warp[first], data.visible[first], shape)
        if not seen.any():
            continue
        answer = kernel_neighbours(layer(data.features[first]), layer(data.features[second]), options.temperature)
        loss = (answer - truth)[seen].norm(dim=-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return layer


@torch.inference_mode()
def judge(data: Encoded, layer: nn.Module, options: StudyOptions) -> Worth:
    """Evaluate predicted positions from A to B, at the centres of 2 px cells."""
    half = len(data.features) // 2
    side = data.warp.shape[1] // 2
    errors = []
    for index in range(half):
        one, other = (layer(data.features[i : i + 1]) for i in (index, index + half))
        answer = kernel_neighbours(one, other, options.temperature).permute(0, 3, 1, 2)
        fine = F.interpolate(answer, (side, side), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
        truth, seen = ground_truth_at(data.warp[index : index + 1], data.visible[index : index + 1], (side, side))
        errors.append((fine - truth)[seen].norm(dim=-1) * _SIDE / 2)
    pooled = torch.cat(errors)
    return Worth(float(pooled.mean()), float((pooled < COARSE_LIMIT * _SIDE).float().mean()))


def study(
    maps: Callable[[str, int], FeatureMap], options: StudyOptions, *, say: Say = lambda _: None
) -> dict[str, tuple[Worth, list[Worth]]]:
    """For each map by name, its result without the layer, and with the layer trained on each seed."""
    judged = validation_pairs(validation_textures(options.validation), options.judged, size=options.size)
    textures = Textures.load(options.textures, procedural=PROCEDURAL, seed=options.seed)
    pairs = [
        sample_pair(textures, np.random.default_rng([options.seed, i]), options.size) for i in range(options.pairs)
    ]
    found = {}
    for word in options.features:
        features = maps(word, options.seed)
        say(f"encoding with {features.name}")
        training, validation = encoded(features, pairs), encoded(features, judged)
        plain = judge(validation, nn.Identity(), options)
        trained = []
        for repeat in range(options.repeats):
            say(f"training on {features.name}, {repeat + 1} of {options.repeats}")
            trained.append(judge(validation, train(training, options, options.seed + repeat), options))
        found[features.name] = plain, trained
    return found
