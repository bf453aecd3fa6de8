from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from romacli.networks.mini import Mini
from romacli.networks.parts.maps import cell_centres
from romacli.train.losses import (
    NCE_RADIUS,
    anchor_loss,
    bilinear_targets,
    certainty_loss,
    classification_loss,
    descriptor_loss,
    mini_loss,
    refinement_loss,
    robust_loss,
)


def test_bilinear_targets_sum_to_one_and_average_to_the_position():
    position = torch.tensor([[1.25, 2.5], [0.0, 0.0], [3.7, -2.0]])
    index, weight = bilinear_targets(position, 4)
    torch.testing.assert_close(weight.sum(dim=-1), torch.ones(3))
    mean = torch.stack(((index % 4 * weight).sum(-1), (index // 4 * weight).sum(-1)), dim=-1)
    torch.testing.assert_close(mean, position.clamp(0, 3), atol=1e-3, rtol=0)


def test_classification_equals_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    logits, truth = (
        torch.randn(2, 3, 3, 16, generator=generator),
        torch.rand(2, 3, 3, 2, generator=generator) - 0.5,
    )
    seen = torch.rand(2, 3, 3, generator=generator) > 0.3
    expected = []
    for b, y, x in seen.nonzero().tolist():
        column, row = ((truth[b, y, x] + 1) / 2 * 4 - 0.5).tolist()
        probability = logits[b, y, x].softmax(0)
        loss = 0.0
        for r in (math.floor(row), math.floor(row) + 1):
            for c in (math.floor(column), math.floor(column) + 1):
                share = (1 - abs(row - r)) * (1 - abs(column - c))
                loss -= share * math.log(probability[r * 4 + c])
        expected.append(loss)
    assert classification_loss(logits, truth, seen, 4).item() == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_refinement_loss_of_a_known_error_worked_by_hand():
    truth = torch.zeros(1, 4, 4, 2)
    warp = truth.clone()
    warp[..., 0] = 3 * 0.05 / 2  # 3 c in cells: (9 + 1)^(1/4)
    counts = torch.ones(1, 4, 4, dtype=torch.bool)
    assert refinement_loss(warp, truth, counts).item() == pytest.approx(0.05**0.5 * (10**0.25 - 1), rel=1e-4)
    assert refinement_loss(truth, truth, counts).item() == pytest.approx(0, abs=1e-7)


def test_anchor_loss_equals_a_plain_loop():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 16, 3, 3, generator=generator)
    truth = torch.rand(2, 3, 3, 2, generator=generator) * 2 - 1
    seen = torch.rand(2, 3, 3, generator=generator) > 0.3
    anchors = cell_centres(4, 4).reshape(-1, 2)
    expected = [
        -logits[b, :, y, x].log_softmax(0)[(anchors - truth[b, y, x]).norm(dim=1).argmin()].item()
        for b, y, x in seen.nonzero().tolist()
    ]
    assert anchor_loss(logits, truth, seen).item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_robust_loss_is_quadratic_near_zero_and_grows_with_the_root_far_away():
    values = [robust_loss(torch.tensor([x]), 0.01).item() for x in (0.0, 1e-3, 2e-3, 1.0, 4.0)]
    assert values[0] == pytest.approx(0.1)
    assert (values[2] - values[0]) / (values[1] - values[0]) == pytest.approx(4, rel=0.03)
    assert values[4] / values[3] == pytest.approx(2, rel=1e-3)
    assert robust_loss(torch.zeros(0), 0.01).item() == 0


def test_certainty_loss_equals_the_definition():
    logits, right = torch.tensor([0.5, -2.0]), torch.tensor([True, False])
    expected = -(math.log(torch.sigmoid(logits[0])) + math.log(1 - torch.sigmoid(logits[1]))) / 2
    assert certainty_loss(logits, right).item() == pytest.approx(expected, rel=1e-5)


def test_descriptor_loss_equals_a_plain_loop():
    generator = torch.Generator().manual_seed(1)
    side, gain = 12, torch.tensor(5.0)
    descriptors = F.normalize(torch.randn(2, 6, side, side, generator=generator), dim=1)
    truth = cell_centres(side, side).expand(2, -1, -1, -1) + 0.1 / side
    seen = torch.zeros(2, side, side, dtype=torch.bool)
    seen[0, 5, 6] = seen[1, 2, 3] = True
    expected = []
    for image, y, x in ((0, 5, 6), (1, 2, 3)):
        logits, target = {}, {}
        for row in range(y - NCE_RADIUS, y + NCE_RADIUS + 2):
            for column in range(x - NCE_RADIUS, x + NCE_RADIUS + 2):
                if 0 <= row < side and 0 <= column < side:
                    cosine = descriptors[image, :, y, x] @ descriptors[1 - image, :, row, column]
                    logits[row, column] = 5 * cosine.item()
                    near_x, near_y = max(0.0, 1 - abs(x + 0.05 - column)), max(0.0, 1 - abs(y + 0.05 - row))
                    target[row, column] = near_x * near_y
        normaliser = math.log(sum(math.exp(v) for v in logits.values()))
        expected.append(sum(target[k] * (normaliser - logits[k]) for k in logits))
    found = descriptor_loss(descriptors, truth, seen, gain)
    assert found.item() == pytest.approx(sum(expected) / 2, rel=1e-4)


def test_losses_of_an_unrelated_pair_are_zero_and_keep_their_gradient():
    nothing = torch.zeros(2, 3, 3, dtype=torch.bool)
    truth = torch.zeros(2, 3, 3, 2)
    logits = torch.randn(2, 3, 3, 9, requires_grad=True)
    descriptors = torch.randn(2, 4, 3, 3, requires_grad=True)
    warp = torch.randn(2, 3, 3, 2, requires_grad=True)
    total = (
        classification_loss(logits, truth, nothing, 3)
        + descriptor_loss(descriptors, truth, nothing, torch.tensor(1.0))
        + refinement_loss(warp, truth, nothing)
    )
    total.backward()
    assert total.item() == 0
    assert all((leaf.grad == 0).all() for leaf in (logits, descriptors, warp))


def test_tokens_are_trained_to_be_found_in_an_image_of_half_the_size():
    torch.manual_seed(0)
    network = Mini()
    images = torch.randn(2, 3, 64, 64)
    encoded = network.encode_coarse(images)
    trace = network.trace(encoded)
    truth = cell_centres(64, 64, torch.device("cpu")).expand(2, -1, -1, -1)
    _, losses = mini_loss(network, encoded, trace, truth, torch.ones(2, 64, 64, dtype=torch.bool))
    to_half, from_half = losses["across0"], losses["across1"]
    assert trace.across is not None
    assert [tuple(cosines.shape) for cosines in trace.across.compared] == [(2, 4, 4, 4), (2, 2, 2, 16)]
    logits = trace.across.compared[0] * network.log_token_gain.exp()
    # A token's centre lies in the quarter of the image that one token of the half covers, or at its edge.
    expected = classification_loss(logits, truth[:, 8::16, 8::16] - 1 / 64, torch.ones(2, 4, 4, dtype=torch.bool), 2)
    assert to_half.item() == pytest.approx(expected.item(), rel=1e-4)
    (to_half + from_half).backward()
    assert network.tokens.weight.grad is not None
    assert network.tokens.weight.grad.abs().sum() > 0
