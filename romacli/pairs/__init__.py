"""Lists of image pairs from something; pure functions that know neither pixels nor matchers."""

from __future__ import annotations

from .exhaustive import exhaustive
from .listfile import ReadPairs, format_pairs, read_pairs, write_pairs
from .sequential import sequential

__all__ = ["ReadPairs", "exhaustive", "format_pairs", "read_pairs", "sequential", "write_pairs"]
