from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from romacli.networks.parts.pointwise import Linear, PointwiseConv2d, pointwise


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(5,), (1, 257, 5), (2, 16, 5), (2, 3, 7, 5), (0, 5)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_is_a_linear_map_of_the_last_dimension(
    shape: tuple[int, ...], bias: bool, dtype: torch.dtype, threads: int
) -> None:
    generator = torch.Generator().manual_seed(4)
    x, weight, offset = (torch.randn(size, generator=generator).to(dtype) for size in (shape, (3, 5), (3,)))
    found = pointwise(x, weight, offset if bias else None)
    assert found.is_contiguous()
    torch.testing.assert_close(found, F.linear(x, weight, offset if bias else None))


def test_gradients_are_those_of_a_linear_layer(threads: int) -> None:
    layer = Linear(5, 3)
    x = torch.randn(1, 33, 5, requires_grad=True)
    goal = torch.randn(1, 33, 3)
    inputs = [x, layer.weight, layer.bias]
    found = torch.autograd.grad((layer(x) * goal).sum(), inputs)
    expected = torch.autograd.grad((F.linear(*inputs) * goal).sum(), inputs)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_maps_are_convolved_in_either_memory_format(memory_format: torch.memory_format, threads: int) -> None:
    layer = PointwiseConv2d(6, 4).to(memory_format=memory_format)
    x = torch.randn(2, 6, 5, 7).contiguous(memory_format=memory_format)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias))


def test_rows_that_are_not_contiguous_are_read_in_order(threads: int) -> None:
    x, weight = torch.randn(2, 9, 6)[:, 1:], torch.randn(4, 6)
    torch.testing.assert_close(pointwise(x, weight, None), F.linear(x, weight))
