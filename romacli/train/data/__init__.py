"""Where training pairs come from: rendered scenes, or photographs with depth and pose."""

from __future__ import annotations

from .source import PairSource, pair_source
from .stream import batches

__all__ = ["PairSource", "batches", "pair_source"]
