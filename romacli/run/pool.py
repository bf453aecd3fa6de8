"""The interface of process pools, and the outcomes of pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from romacli.errors import RomacliError
from romacli.run.match import MatchSummary
from romacli.types import Pair

# Of a piece: it is matched, an expected error that would recur, or how the process that had it died.
Outcome = MatchSummary | RomacliError | str


class Pool(Protocol):
    """Processes by number. One that died is restarted with its next piece."""

    size: int

    def submit(self, worker: int, pairs: Sequence[Pair]) -> None: ...

    def outcomes(self, timeout_s: float) -> Iterator[tuple[int, Outcome]]:
        """The outcomes of pieces since the last call, after waiting a while for the first."""
        ...

    def close(self) -> None:
        """End the processes after their current batches."""
        ...
