"""What a computation asks of its device: floating-point operations, and bytes read and written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from romacli.eval.parts import Meter

_ATEN = torch.ops.aten
_PICKS = (_ATEN.index_select, _ATEN.gather, _ATEN.index, _ATEN.embedding)


@contextmanager
def counted() -> Iterator[Meter]:
    """Count what this thread computes: readings are arrays (floating-point operations, bytes).

    Operations are those of products, convolutions, attention, factorisations and solves; a multiplication and an
    addition are two. Bytes are those of what each operation reads and writes, a tensor once. Caches may keep some of
    it from the memory, and an operation may read a tensor more than once.
    """
    flops = FlopCounterMode(
        display=False,
        custom_mapping={
            _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
            _ATEN.linalg_cholesky_ex: _cholesky_flops,
            _ATEN.cholesky_solve: _solve_flops,
        },
    )
    traffic = _Traffic()
    with flops, traffic:
        yield Meter(
            lambda: np.array([flops.get_total_flops(), traffic.num_bytes], np.int64), lambda start, end: end - start
        )


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _cholesky_flops(matrix: Any, *_: Any, **__: Any) -> int:
    *batch, side, _side = matrix
    return math.prod(batch) * side**3 // 3


def _solve_flops(right: Any, factor: Any, *_: Any, **__: Any) -> int:
    """Two triangular solves."""
    return 2 * math.prod(right) * int(factor[-1])


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of what operations take and return."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "aten":
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if not _moves_nothing(func):
            written = _bytes(out)
            read = _bytes((args, kwargs))
            self.num_bytes += written + (min(read, written) if func.overloadpacket in _PICKS else read)
        return out


def _moves_nothing(func: Any) -> bool:
    """Whether an operation is a view, or room for what another writes."""
    name = func.overloadpacket.__name__
    returned = [value.alias_info for value in func._schema.returns]
    return "empty" in name or any(alias is not None and not alias.is_write for alias in returned)


def _bytes(values: Any) -> int:
    """Of the tensors among values; what is expanded lies in memory once."""
    tensors = (value for value in tree_leaves(values) if isinstance(value, Tensor))
    return sum(min(tensor.nbytes, tensor.untyped_storage().nbytes()) for tensor in tensors)
