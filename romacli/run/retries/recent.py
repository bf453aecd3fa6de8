"""Features of photographs kept between retries, within a memory limit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from romacli.types import Features


class RecentFeatures:
    """Features of several views of each photograph, computed on demand; the least recently used are dropped first."""

    def __init__(self, make: Callable[[str], Sequence[Features]], capacity_bytes: int) -> None:
        self._make = make
        self._capacity_bytes = capacity_bytes
        self._held: OrderedDict[str, Sequence[Features]] = OrderedDict()

    def __getitem__(self, name: str) -> Sequence[Features]:
        if name not in self._held:
            self._held[name] = self._make(name)
            while len(self._held) > 1 and self._num_bytes() > self._capacity_bytes:
                self._held.popitem(last=False)
        self._held.move_to_end(name)
        return self._held[name]

    def clear(self) -> None:
        """Drop all features."""
        self._held.clear()

    def _num_bytes(self) -> int:
        return sum(features.nbytes for views in self._held.values() for features in views)
