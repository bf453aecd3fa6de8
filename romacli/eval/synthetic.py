"""How good a mini network is on synthetic pairs it has not seen, as a handful of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from romacli.geometry.ground_truth import ground_truth_at
from romacli.matching.dense import normalise
from romacli.models.mini import Mini, swap_halves
from romacli.synthetic import SyntheticPair, Textures, sample_pair
from romacli.synthetic.batch import stacked

COARSE_LIMIT = 32 / 448  # of the image's side: RoMa's robustness criterion
RIGHT_WITHIN_PX = 3.0  # what the certainty is asked about


@dataclass(frozen=True)
class ValidationResult:
    """Shares of visible pixels of A, one pass, and how well certainty ranks.

    Attributes:
        pck1, pck3, pck5: final warp within 1, 3, 5 px of the truth, at the pairs' own size.
        coarse: anchor warp within 32 px at 448 px.
        certainty_auc: area under the ROC curve of the final certainty against "visible and within 3 px",
            unrelated pairs included.
    """

    pck1: float
    pck3: float
    pck5: float
    coarse: float
    certainty_auc: float


def validation_pairs(textures: Textures, count: int, *, size: int, seed: int) -> list[SyntheticPair]:
    """Return a fixed list of pairs; the same arguments give the same pairs."""
    return [sample_pair(textures, np.random.default_rng([seed, index]), size) for index in range(count)]


@torch.inference_mode()
def evaluate(network: Mini, pairs: Sequence[SyntheticPair], *, batch_size: int = 8) -> ValidationResult:
    """Return what a network in evaluation mode reaches on the pairs, from A to B, in one pass.

    Single precision of the autocast kind the caller has set; sizes must be multiples of 16.
    """
    device = next(network.parameters()).device
    final: list[Tensor] = []
    coarse: list[Tensor] = []
    certainty: list[Tensor] = []
    right: list[Tensor] = []
    for start in range(0, len(pairs), batch_size):
        images, warp, visible = (tensor.to(device) for tensor in stacked(pairs[start : start + batch_size]))
        encoded = network.encode(normalise(images))
        half = len(images) // 2
        stages = network.trace(encoded, swap_halves(encoded), symmetric=True).stages
        for stage, errors in ((stages[0], coarse), (stages[-1], final)):
            error, seen = _errors_px(stage.warp[:half], warp[:half], visible[:half])
            errors.append(error[seen])
        certainty.append(stages[-1].certainty[:half].flatten())
        right.append((seen & (error < RIGHT_WITHIN_PX)).flatten())
    size = pairs[0].image_A.shape[0]
    error_px = torch.cat(final)
    return ValidationResult(
        pck1=_share(error_px < 1),
        pck3=_share(error_px < 3),
        pck5=_share(error_px < 5),
        coarse=_share(torch.cat(coarse) < COARSE_LIMIT * size),
        certainty_auc=area_under_roc(torch.cat(certainty).float().cpu().numpy(), torch.cat(right).cpu().numpy()),
    )


def area_under_roc(score: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return the chance that a positive outscores a negative; ties take the order they come in."""
    rank = np.empty(len(score))
    rank[np.argsort(score, kind="stable")] = np.arange(1, len(score) + 1)
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return float("nan")
    return float((rank[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _share(right: Tensor) -> float:
    return float(right.float().mean())


def _errors_px(predicted: Tensor, warp: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    truth, seen = ground_truth_at(warp, visible, (predicted.shape[1], predicted.shape[2]))
    return (predicted - truth).norm(dim=-1) * (warp.shape[1] / 2), seen
