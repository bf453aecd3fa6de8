"""Training losses, as functions from tensors to one number each.

Warps are normalised (align_corners=False). The ground truth is a dense warp with a visibility mask, sampled at the cell
centres of the prediction's grid. The losses are those of RoMa (arXiv 2305.15404, section 3.4), except for that of the
descriptors, which RoMa trains through its correlation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from romacli.geometry.ground_truth import ground_truth_at
from romacli.networks.mini import Mini, MiniTrace
from romacli.networks.roma import Trace

CHARBONNIER_ALPHA = 0.5  # RoMa section 3.4
CHARBONNIER_SCALE = 0.05  # in cells; RoMa's c = 0.03 with its own units
REACH_CELLS = (5.0, 4.0, 4.0)  # a refiner of stride 8, 4, 2 is not trained on starts further off than this
SURE_ERROR_CELLS = 1.5  # of stride 2, so 3 px: a pass's last certainty means visible and within this error
ROMA_CHARBONNIER_SCALE = 1e-4  # of half the side, times the stride: the paper's c = 0.03 px at 560 px
ROMA_CERTAINTY_WEIGHT = 0.01
ROMA_PIXEL = 2 / 512  # the unit of the reach below, normalised
# A refiner is trained on starts up to this error, in its own strides; at stride 16 on any.
ROMA_REACH = {16: math.inf, 8: 8.0, 4: 8.0, 2: 4.0, 1: 4.0}
NCE_QUERIES = 128  # points per image in the descriptor loss
NCE_RADIUS = 4  # cells around the true match among which a descriptor must identify it
LEAST_POSITIVES = 32  # per pair, to be used for training fusion
SEMANTIC_POINTS = 256  # per pair, in place of annotated keypoints
GEOMETRIC_SCALE, CONTRAST_SCALE, FLOW_TEMPERATURE = 0.2, 1 / 0.07, 0.02  # MATCHA's
GEOMETRIC_WEIGHT, SEMANTIC_WEIGHT = 0.25, 0.1  # MATCHA's; the first because one of its four geometric losses is used
WEIGHTS = {"anchors": 1.0, "tokens": 0.5, "across": 0.25, "descriptors": 0.3, "warp": 1.0, "certainty": 0.1}


def mini_loss(
    network: Mini,
    encoded: Mapping[str, Tensor],
    trace: MiniTrace,
    warp: Tensor,
    visible: Tensor,
    *,
    robust: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of all losses, and each of them by name for the log.

    Args:
        network: for the learned temperatures of the contrastive losses.
        encoded: features of A and B concatenated along the batch, the inputs of `trace`.
        trace: both directions of the batch, A to B in the first half.
        warp: (2B, S, S, 2) true warps, normalised; NaN where nobody knows whether a point is visible.
        visible: (2B, S, S) bool, where they are valid.
        robust: train refiners with the generalised Charbonnier loss, otherwise with the mean distance.
    """
    shape = (int(trace.anchor_logits.shape[1]), int(trace.anchor_logits.shape[2]))
    truth, seen = ground_truth_at(warp, visible, shape)
    token_logits = (trace.correlation * network.log_token_gain.exp()).view(*trace.anchor_logits.shape[:3], -1)
    losses = {
        "anchors": classification_loss(trace.anchor_logits, truth, seen, network.config.anchors_per_side)
        if network.config.classifies
        else distance_loss(trace.anchor_logits, truth, seen) * (shape[0] / 2),
        "tokens": classification_loss(token_logits, truth, seen, shape[0]),
        "certainty": certainty_loss(trace.stages[0].certainty, seen, is_known(truth)),
    }
    if trace.across is not None:
        for index, cosines in enumerate(trace.across.compared):
            side = math.isqrt(cosines.shape[3])
            if side > 1:  # a half may be a single token
                truth, seen = ground_truth_at(warp, visible, (cosines.shape[1], cosines.shape[2]))
                logits = cosines * network.log_token_gain.exp()
                losses[f"across{index}"] = classification_loss(logits, truth, seen, side)
    for index, stage in enumerate(trace.stages[1:]):
        level = index % len(REACH_CELLS)
        cells = stage.warp.shape[1]
        truth, seen = ground_truth_at(warp, visible, (cells, stage.warp.shape[2]))
        started = _error_in_cells(stage.start, truth)
        losses[f"warp{index}"] = refinement_loss(
            stage.warp, truth, seen & (started < REACH_CELLS[level]), robust=robust
        )
        ends_pass = level == len(REACH_CELLS) - 1
        right = _error_in_cells(stage.warp, truth) < SURE_ERROR_CELLS if ends_pass else started < 2 * REACH_CELLS[level]
        losses[f"certainty{index}"] = certainty_loss(stage.certainty, seen & right, is_known(truth))
    for name in [key for key in encoded if key.endswith("descriptors")]:
        gain = network.log_descriptor_gain[0 if "_8_" in name else 1].exp()
        truth, seen = ground_truth_at(warp, visible, (encoded[name].shape[2], encoded[name].shape[3]))
        losses[name] = descriptor_loss(encoded[name], truth, seen, gain)
    total = torch.stack([_weight(name) * value for name, value in losses.items()]).sum()
    return total, losses


def roma_loss(
    trace: Trace, warp: Tensor, visible: Tensor, *, classifies: bool = True, robust: bool = True
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sum of RoMa's losses, and each of them by name for the log.

    Source: section 3.4, the coarse loss and those of all refiners. Excluding large initial errors from refiners of
    stride 8 and below follows the authors' code.

    Args:
        trace: both directions of the batch, A to B in the first half.
        warp: (2B, S, S, 2) true warps, normalised.
        visible: (2B, S, S) bool, where they are valid.
        classifies: the decoder outputs anchor logits, otherwise coordinates.
        robust: train refiners with the generalised Charbonnier loss, otherwise with the mean distance.
    """
    truth, seen = ground_truth_at(warp, visible, _shape(trace.anchor_logits))
    losses = {
        "anchors": anchor_loss(trace.anchor_logits, truth, seen)
        if classifies
        else distance_loss(trace.anchor_logits.permute(0, 2, 3, 1), truth, seen),
        "certainty": ROMA_CERTAINTY_WEIGHT * certainty_loss(trace.certainty[:, 0], seen),
    }
    error = None
    for stage in trace.stages:
        truth, seen = ground_truth_at(warp, visible, _shape(stage.flow))
        if error is not None:
            near = F.interpolate(error[:, None], seen.shape[1:], mode="nearest-exact")[:, 0]
            seen = seen & (near < ROMA_REACH[stage.stride] * stage.stride * ROMA_PIXEL)
        flow = stage.flow.permute(0, 2, 3, 1)
        distance = (flow - truth).norm(dim=-1)
        losses[f"warp{stage.stride}"] = (
            robust_loss(distance[seen], ROMA_CHARBONNIER_SCALE * stage.stride)
            if robust
            else distance_loss(flow, truth, seen)
        )
        losses[f"certainty{stage.stride}"] = ROMA_CERTAINTY_WEIGHT * certainty_loss(stage.certainty[:, 0], seen)
        error = distance.detach()
    return torch.stack(list(losses.values())).sum(), losses


def fusion_loss(F_s: Tensor, F_g: Tensor, truth: Tensor, seen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return MATCHA's losses on the fused maps, weighted and summed, and each of them by name for the log.

    Source: Xue et al., MATCHA (arXiv 2501.14945): dual softmax on the geometric map, contrast and dense flow on the
    semantic one. Its noise on annotated points is omitted, as rendered truth has none, and so are the losses of
    heads that descriptors do not need.

    Args:
        F_s: (2B, C, h, w) of unit length, A in the first half, B in the second. F_g: (2B, D, h, w), not normalised.
        truth: (2B, h, w, 2) normalised true warps into the other half.
        seen: (2B, h, w) bool.
    """
    half = len(F_g) // 2
    found: dict[str, list[Tensor]] = {"geometry": [], "contrast": [], "flow": []}
    for index in range(half):
        a, b = positives(truth[half + index], seen[half + index])
        if len(a) < LEAST_POSITIVES:
            continue
        X, Y = (maps.flatten(1).T[cells] for maps, cells in ((F_g[index], a), (F_g[half + index], b)))
        found["geometry"].append(dual_softmax_loss(GEOMETRIC_SCALE * X @ Y.T))
        some = torch.randperm(len(a), device=a.device)[:SEMANTIC_POINTS]
        P, Q = (maps.flatten(1).T[cells[some]] for maps, cells in ((F_s[index], a), (F_s[half + index], b)))
        found["contrast"].append(dual_softmax_loss(CONTRAST_SCALE * P @ Q.T) / 2)
        found["flow"].append(flow_loss(Q, F_s[index], a[some]))
    losses = {name: torch.stack(values or [F_g.sum() * 0]).mean() for name, values in found.items()}
    semantic = losses["contrast"] + losses["flow"]
    return GEOMETRIC_WEIGHT * losses["geometry"] + SEMANTIC_WEIGHT * semantic, losses


def positives(truth: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Matching cells (N,) of A and of B, row-major, one to one.

    Args:
        truth: (h, w, 2) normalised positions in A of the centres of B's cells. seen: (h, w) bool.
    """
    height, width = seen.shape
    column, row = ((truth + 1) / 2 * truth.new_tensor([width, height])).long().unbind(-1)
    inside = seen & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    b = inside.flatten().nonzero()[:, 0]
    a = (row * width + column).flatten()[b]
    # If several cells of B are in one of A, the last one counts; cells are numbered from 1.
    partner = torch.zeros(height * width, dtype=torch.long, device=b.device).scatter_reduce(0, a, b + 1, "amax")
    a = partner.nonzero()[:, 0]
    return a, partner[a] - 1


def dual_softmax_loss(logits: Tensor) -> Tensor:
    """Return the mean cross entropy of the diagonal of (N, N) logits along rows plus that along columns."""
    right = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)


def flow_loss(queries: Tensor, maps: Tensor, cells: Tensor) -> Tensor:
    """Return the mean distance in cells between the soft-argmax of the similarities and the true position.

    Args:
        queries: (N, C) unit descriptors of one image. maps: (C, h, w) of the other.
        cells: (N,) true cells of the other, row-major.
    """
    height, width = maps.shape[-2:]
    weights = (queries @ maps.flatten(1) / FLOW_TEMPERATURE).softmax(dim=1)
    index = torch.arange(height * width, device=maps.device)
    places = torch.stack([index % width, index // width], dim=1).to(weights.dtype)
    return (weights @ places - places[cells]).norm(dim=1).mean()


def anchor_loss(logits: Tensor, truth: Tensor, seen: Tensor) -> Tensor:
    """Return the mean of -log pi_k(x) over visible points, where k is the anchor nearest to the true match.

    Source: RoMa section 3.4, the coarse loss: the Kullback-Leibler divergence of regression by classification.

    Args:
        logits: (B, side * side, h, w), anchors row-major.
        truth: (B, h, w, 2) normalised.
        seen: (B, h, w) bool, the points that count.
    """
    side = math.isqrt(logits.shape[1])
    column, row = ((truth + 1) * (side / 2)).long().clamp(0, side - 1).unbind(-1)
    penalty = F.cross_entropy(logits.float(), row * side + column, reduction="none")
    return (penalty * seen).sum() / seen.sum().clamp(min=1)


def robust_loss(distance: Tensor, scale: float) -> Tensor:
    """Return the mean of scale^a ((distance / scale)^2 + 1)^(a / 2), a = 0.5, or 0 if there are no distances.

    Source: RoMa section 3.4, the generalised Charbonnier loss: like L2 near 0, for smooth refinement, and with a
    gradient that falls with the square root of the distance, to ignore outliers.

    Args:
        distance: (N,) between predicted and true targets.
        scale: the distance where the behaviour changes, in the same unit.
    """
    penalty = scale**CHARBONNIER_ALPHA * ((distance / scale).square() + 1) ** (CHARBONNIER_ALPHA / 2)
    return penalty.sum() / max(len(distance), 1)


def classification_loss(logits: Tensor, truth: Tensor, seen: Tensor, side: int) -> Tensor:
    """Return the cross entropy over a grid of `side` squared classes, with the target shared by the nearest four.

    Source: RoMa section 3.3, regression by classification; RoMa's target is the nearest anchor only.

    Args:
        logits: (B, h, w, side * side), row-major.
        truth: (B, h, w, 2) normalised.
        seen: (B, h, w) bool, the points that count.
        side: classes along each axis.
    """
    if not seen.any():
        return logits.sum() * 0
    logits, position = logits[seen].float(), (truth[seen] + 1) / 2 * side - 0.5  # (N, side^2), (N, 2)
    index, weight = bilinear_targets(position, side)
    likelihood = logits.log_softmax(dim=-1).gather(-1, index)
    return -(likelihood * weight).sum(dim=-1).mean()


def bilinear_targets(position: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return the four cells (N, 4) around positions (N, 2), and their weights; cell centres are at integers."""
    position = position.clamp(0, side - 1 - 1e-4)
    base = position.floor()
    x, y = (position - base).unbind(-1)
    column, row = base.long().unbind(-1)
    index = torch.stack([(row + dy) * side + column + dx for dy in (0, 1) for dx in (0, 1)], dim=-1)
    weight = torch.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], dim=-1)
    return index, weight


def distance_loss(warp: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """Return the mean normalised distance between a warp and the truth, the loss of both of DKM's stages.

    Args:
        warp, truth: (B, h, w, 2).
        counts: (B, h, w) bool, the points that count.
    """
    return (warp - truth)[counts].norm(dim=-1).sum() / counts.sum().clamp(min=1)


def refinement_loss(warp: Tensor, truth: Tensor, counts: Tensor, *, robust: bool = True) -> Tensor:
    """Return the mean generalised Charbonnier penalty of the errors, in cells of the warp's own grid.

    Source: RoMa section 3.4, alpha = 0.5; shifted to be 0 for zero error.

    Args:
        robust: otherwise the mean error itself.
    """
    if not robust:
        return distance_loss(warp, truth, counts) * (warp.shape[1] / 2)
    if not counts.any():
        return warp.sum() * 0
    error = (warp - truth)[counts].norm(dim=-1) * (warp.shape[1] / 2)
    return robust_loss(error, CHARBONNIER_SCALE) - CHARBONNIER_SCALE**CHARBONNIER_ALPHA


def certainty_loss(logits: Tensor, right: Tensor, known: Tensor | None = None) -> Tensor:
    """Return the binary cross entropy of certainty logits (RoMa section 3.4), where `known` if given."""
    penalty = F.binary_cross_entropy_with_logits(logits.float(), right.float(), reduction="none")
    return penalty.mean() if known is None else (penalty * known).sum() / known.sum().clamp(min=1)


def is_known(truth: Tensor) -> Tensor:
    """Where it is known if a point is visible, (B, h, w) bool, in true warps (B, h, w, 2)."""
    return torch.isfinite(truth).all(dim=-1)


def descriptor_loss(descriptors: Tensor, truth: Tensor, seen: Tensor, gain: Tensor) -> Tensor:
    """Return the cross entropy of identifying the true match among the cells around it.

    The refiners' local correlation carries no gradient, so descriptors are trained here: random visible points of A
    are compared with the (2r+2)^2 cells around their true match in B, with the target shared bilinearly by the
    four nearest.

    Args:
        descriptors: (2B, C, h, w) unit vectors, A in the first half, B in the second.
        truth: (2B, h, w, 2) normalised true warps into the other half.
        seen: (2B, h, w) bool.
        gain: inverse temperature.
    """
    batch, channels, height, width = descriptors.shape
    chosen = (torch.rand(seen.shape, device=seen.device) + 1) * seen
    order = chosen.flatten(1).topk(min(NCE_QUERIES, height * width), dim=1).indices
    image, cell = torch.nonzero(seen.flatten(1).gather(1, order), as_tuple=True)
    if len(image) == 0:
        return (descriptors.sum() + gain) * 0
    cell = order[image, cell]
    rows = descriptors.permute(0, 2, 3, 1).reshape(-1, channels)
    query = rows.index_select(0, image * height * width + cell).float()
    position = (truth.flatten(1, 2)[image, cell] + 1) / 2 * truth.new_tensor([width, height]) - 0.5
    window = 2 * NCE_RADIUS + 2
    base = position.floor().long() - NCE_RADIUS
    steps = torch.arange(window, device=base.device)
    x, y = base[:, :1] + steps, base[:, 1:] + steps
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None]
    other = (image + batch // 2) % batch
    index = (other[:, None, None] * height + y.clamp(0, height - 1)[:, :, None]) * width + x.clamp(0, width - 1)[
        :, None
    ]
    candidates = rows.index_select(0, index.flatten()).float().view(len(image), window * window, channels)
    logits = torch.bmm(candidates, query[:, :, None])[..., 0] * gain
    logits = logits.masked_fill(~inside.flatten(1), -1e4)
    target, weight = bilinear_targets(position - base, window)
    likelihood = logits.log_softmax(dim=-1).gather(-1, target).clamp(min=-100.0)
    return -(likelihood * weight).sum(dim=-1).mean()


def _shape(maps: Tensor) -> tuple[int, int]:
    return int(maps.shape[-2]), int(maps.shape[-1])


def _error_in_cells(warp: Tensor, truth: Tensor) -> Tensor:
    """Distances (B, h, w) between warps, in cells of their own grid; without gradient."""
    return (warp.detach() - truth).norm(dim=-1) * (warp.shape[1] / 2)


def _weight(name: str) -> float:
    kind = "descriptors" if name.endswith("descriptors") else name.rstrip("0123456789")
    return WEIGHTS[kind]
