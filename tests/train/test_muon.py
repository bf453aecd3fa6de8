from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from romacli.train.muon import Muon, is_matrix, orthogonal

RATE = 0.01


def stepped(weights, gradients, *, is_orthogonal, decay=0.0):
    """The weights after steps along the gradients."""
    weights = nn.Parameter(weights.clone())
    group = {"params": [weights], "lr": RATE, "orthogonal": is_orthogonal}
    optimizer = Muon([group], precision=torch.float32, betas=(0.9, 0.98), weight_decay=decay)
    for gradient in gradients:
        weights.grad = gradient.clone()
        optimizer.step()
    return weights.detach()


def set_gradient(weights, gradient):
    weights.grad = gradient.clone()
    return 7


@pytest.mark.parametrize("shape", [(24, 24), (16, 90), (90, 16)])
def test_orthogonal_matrix_keeps_singular_vectors_and_levels_their_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonal(matrix)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6
    assert values.max() < 1.3
    U, _, Vh = torch.linalg.svd(matrix, full_matrices=False)
    inner = U.T @ found @ Vh.T
    assert (inner - torch.diag(torch.diagonal(inner))).abs().max() < 1e-3


def test_orthogonal_matrix_of_nothing_is_finite():
    assert not orthogonal(torch.zeros(20, 30)).any()


def test_filters_step_as_matrices_as_large_as_adamw():
    filters = torch.zeros(64, 32, 3, 3)
    gradient = torch.randn(filters.shape, generator=torch.Generator().manual_seed(1))
    step = stepped(filters, [gradient], is_orthogonal=True)
    values = torch.linalg.svdvals(step.flatten(1))
    assert values.max() / values.min() < 2
    assert step.square().mean().sqrt() == pytest.approx(0.2 * RATE, rel=0.25)
    assert (step * gradient).sum() < 0


def test_momentum_carries_on_in_the_direction_of_earlier_gradients():
    first, second = torch.eye(20), torch.eye(20).flip(0)
    alone = stepped(torch.zeros(20, 20), [second], is_orthogonal=True)
    after = stepped(torch.zeros(20, 20), [first] * 20 + [second], is_orthogonal=True)
    before = stepped(torch.zeros(20, 20), [first] * 20, is_orthogonal=True)
    last = after - before
    assert (last * first).sum() < -0.5 * (alone * second).sum().abs()


def test_weights_shrink_by_the_decay():
    weights = torch.ones(20, 20)
    without = stepped(weights, [torch.eye(20)], is_orthogonal=True)
    decayed = stepped(weights, [torch.eye(20)], is_orthogonal=True, decay=0.1)
    np.testing.assert_allclose(without - decayed, np.full((20, 20), RATE * 0.1), atol=1e-6)


def test_other_weights_step_as_by_adamw():
    generator = torch.Generator().manual_seed(2)
    weights, *gradients = torch.randn(4, 20, 20, generator=generator)
    reference = nn.Parameter(weights.clone())
    adamw = torch.optim.AdamW([reference], lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
    for gradient in gradients:
        reference.grad = gradient.clone()
        adamw.step()
    assert torch.equal(stepped(weights, gradients, is_orthogonal=False), reference.detach())


def test_restored_steps_go_on_where_they_ended_and_weights_without_gradient_stay():
    generator = torch.Generator().manual_seed(3)
    gradients = torch.randn(4, 20, 20, generator=generator)
    uninterrupted = stepped(torch.zeros(20, 20), gradients, is_orthogonal=True)
    weights, unused, state = [nn.Parameter(torch.zeros(20, 20)) for _ in range(2)] + [None]
    for some in (gradients[:2], gradients[2:]):
        group = {"params": [weights, unused], "lr": RATE, "orthogonal": True}
        optimizer = Muon([group], precision=torch.float32, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        if state is not None:
            optimizer.load_state_dict(state)
        for gradient in some:
            assert optimizer.step(partial(set_gradient, weights, gradient)) == 7
        state = optimizer.state_dict()
    assert torch.equal(weights.detach(), uninterrupted)
    assert not unused.any()


def test_vectors_and_filters_of_single_channels_are_no_matrices():
    shapes = {(64,): False, (64, 1, 5, 5): False, (64, 8): False, (8, 64): False, (64, 16): True, (64, 8, 3, 3): True}
    assert {shape: is_matrix(torch.zeros(shape)) for shape in shapes} == shapes
