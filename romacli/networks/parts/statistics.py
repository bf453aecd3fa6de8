"""Batch norms in training that use the statistics gathered so far, as when matching."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def running_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms in training use their running statistics, and leave these as they are."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d) and part.training]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True
