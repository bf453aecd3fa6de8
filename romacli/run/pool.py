"""The interface of process pools, and the outcomes of pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from romacli.errors import RomacliError
from romacli.run.match import MatchSummary
from romacli.types import Pair


@dataclass(frozen=True)
class Done:
    """A piece is matched."""

    summary: MatchSummary


@dataclass(frozen=True)
class Died:
    """The process that had a piece died."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """An expected error that would recur."""

    error: RomacliError


Outcome = Done | Died | Failed


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
