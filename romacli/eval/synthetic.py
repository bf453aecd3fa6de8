"""Evaluate matchers on synthetic pairs that they were not trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from romacli.geometry.ground_truth import ground_truth_at
from romacli.matchers.dense import normalise
from romacli.matchers.matcher import DenseMatcher
from romacli.networks.mini import Mini
from romacli.synthetic.batch import stacked
from romacli.synthetic.curriculum import COARSE_LIMIT
from romacli.synthetic.pairs import SyntheticPair, sample_pair
from romacli.synthetic.school import REPEATED, SCHOOLS
from romacli.synthetic.textures import Textures

from .certainty import Reliability, area_under_roc, reliability

RIGHT_WITHIN_PX = 3.0  # the event that the certainty predicts
BATCH = 8  # pairs encoded at once

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Recipe:
    """The validation set, determined by the photographs and these values.

    Attributes:
        pairs: number of pairs; size: px, side of the pictures.
        seed: of the pairs, and of the generated textures, which must differ from those of training.
        procedural: number of generated textures added to the photographs.
        matched: number of pairs also matched like photographs, which takes several times as long.
        unrelated: number of additional pairs of different scenes, which are matched and verified.
        school: difficulty of the pairs, a name in `SCHOOLS`.
    """

    pairs: int = 256
    size: int = 256
    seed: int = 20_000
    procedural: int = 40
    matched: int = 64
    unrelated: int = 64
    school: str = "ordinary"


RECIPE = Recipe()


@dataclass(frozen=True)
class ValidationResult:
    """Shares of visible pixels of A, and the quality of the certainty, which includes unrelated pairs.

    Attributes:
        pck1, pck3, pck5: final warp within 1, 3, 5 px of the truth, at the pairs' own size.
        coarse: anchor warp within 32 px at 448 px; NaN if only the final warp is known.
        robust: final warp within 32 px at 448 px.
        certainty_auc: area under the ROC curve of the final certainty against "visible and within 3 px".
        reliability: the same certainty against the same, in bins.
    """

    pck1: float
    pck3: float
    pck5: float
    coarse: float
    robust: float
    certainty_auc: float
    reliability: Reliability

    @property
    def figures(self) -> dict[str, float]:
        """The single numbers by name, first the one by which networks are selected."""
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, float)}
        return {"pck3": numbers["pck3"], **numbers}


def validation_textures(photographs: Path | None, recipe: Recipe = RECIPE) -> Textures:
    """The textures of the recipe's scenes: photographs below a folder, and generated ones.

    Raises:
        InputError: the folder contains no photograph, or one that cannot be read.
    """
    repeated = REPEATED if SCHOOLS[recipe.school].repeated else 0
    return Textures.load(photographs, procedural=recipe.procedural, seed=recipe.seed, repeated=repeated)


def validation_pairs(
    textures: Textures,
    count: int = RECIPE.pairs,
    *,
    size: int = RECIPE.size,
    seed: int = RECIPE.seed,
    school: str = RECIPE.school,
) -> list[SyntheticPair]:
    """Return a fixed list of pairs; the same arguments give the same pairs."""
    rngs = (np.random.default_rng([seed, index]) for index in range(count))
    return [sample_pair(textures, rng, size, school=SCHOOLS[school]) for rng in rngs]


def fingerprint(pairs: Sequence[SyntheticPair]) -> str:
    """Twelve digits of a hash of all pictures: figures are comparable only if they agree."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(pair.image_A.tobytes() + pair.image_B.tobytes())
    return digest.hexdigest()[:12]


@torch.inference_mode()
def evaluate(network: Mini, pairs: Sequence[SyntheticPair], *, advance: Advance = lambda _: None) -> ValidationResult:
    """Evaluate a network in evaluation mode on the pairs, from A to B, in one pass.

    Uses the caller's autocast precision; sizes must be multiples of 16.
    """
    device = next(network.parameters()).device
    scores = _Scores(pairs[0].image_A.shape[0])
    for start in range(0, len(pairs), BATCH):
        images, warp, visible = (tensor.to(device) for tensor in stacked(pairs[start : start + BATCH]))
        half = len(images) // 2
        encoded = network.encode(normalise(images))
        first, *_, last = network.trace(encoded).stages
        truth = warp[:half], visible[:half]
        scores.add_coarse(first.warp[:half], *truth)
        scores.add(last.warp[:half], last.certainty[:half].sigmoid(), *truth)
        advance(half)
    return scores.result()


@torch.inference_mode()
def evaluate_matcher(
    matcher: DenseMatcher, pairs: Sequence[SyntheticPair], *, advance: Advance = lambda _: None
) -> ValidationResult:
    """Evaluate a matcher on the pairs, from A to B, at its own resolutions and passes.

    Its warp is read at the centres of 2 px cells, the grid of `evaluate`, so both figures are comparable.
    """
    side = pairs[0].image_A.shape[0]
    scores = _Scores(side)
    for pair in pairs:
        features = matcher.encode([matcher.prepare(pair.image_A), matcher.prepare(pair.image_B)])
        match = matcher.warp([(features[0], features[1])])[0]
        device = match.warp_AB.device
        _, warp, visible = (tensor.to(device) for tensor in stacked([pair]))
        answer = torch.cat((match.warp_AB, match.certainty_AB[..., None]), dim=-1)
        answer = F.interpolate(answer.permute(2, 0, 1)[None], (side // 2, side // 2), mode="bilinear")[0]
        scores.add(answer[:2].permute(1, 2, 0)[None], answer[2][None], warp[:1], visible[:1])
        advance(1)
    return scores.result()


@torch.inference_mode()
def matched_share(describe: Callable[[Tensor], Tensor], pairs: Sequence[SyntheticPair]) -> float:
    """The share of visible cells of A whose most similar cell of B is within a cell of the truth.

    Args:
        describe: unit descriptors (2B, C, h, w) of images (2B, 3, S, S), ImageNet-normalised, in evaluation mode.
    """
    right = []
    for start in range(0, len(pairs), BATCH):
        images, warp, visible = stacked(pairs[start : start + BATCH])
        maps = describe(normalise(images))
        half, (height, width) = len(images) // 2, maps.shape[-2:]
        truth, seen = ground_truth_at(warp[:half], visible[:half], (height, width))
        similarity = maps[:half].flatten(2).transpose(1, 2) @ maps[half:].flatten(2)
        best = similarity.argmax(dim=2).unflatten(1, (height, width))
        found = torch.stack([best % width, best // width], dim=-1) + 0.5
        error = found - (truth + 1) / 2 * truth.new_tensor([width, height])
        right.append((error.norm(dim=-1) <= 1)[seen])
    return _share(torch.cat(right))


class _Scores:
    """Collects errors in px of pictures `side` px wide, and certainties, batch by batch."""

    def __init__(self, side: int) -> None:
        self._side = side
        self._coarse: list[Tensor] = []
        self._final: list[Tensor] = []
        self._certainty: list[Tensor] = []
        self._right: list[Tensor] = []

    def add_coarse(self, predicted: Tensor, warp: Tensor, visible: Tensor) -> None:
        error, seen = _errors_px(predicted, warp, visible)
        self._coarse.append(error[seen].cpu())

    def add(self, predicted: Tensor, certainty: Tensor, warp: Tensor, visible: Tensor) -> None:
        error, seen = _errors_px(predicted, warp, visible)
        self._final.append(error[seen].cpu())
        self._certainty.append(certainty.float().flatten().cpu())
        self._right.append((seen & (error < RIGHT_WITHIN_PX)).flatten().cpu())

    def result(self) -> ValidationResult:
        final = torch.cat(self._final)
        certainty, right = torch.cat(self._certainty).numpy(), torch.cat(self._right).numpy()
        limit = COARSE_LIMIT * self._side
        return ValidationResult(
            pck1=_share(final < 1),
            pck3=_share(final < 3),
            pck5=_share(final < 5),
            coarse=_share(torch.cat(self._coarse) < limit) if self._coarse else float("nan"),
            robust=_share(final < limit),
            certainty_auc=area_under_roc(certainty, right),
            reliability=reliability(certainty, right),
        )


def _share(right: Tensor) -> float:
    return float(right.float().mean())


def _errors_px(predicted: Tensor, warp: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    truth, seen = ground_truth_at(warp, visible, (predicted.shape[1], predicted.shape[2]))
    return (predicted - truth).norm(dim=-1) * (warp.shape[1] / 2), seen
