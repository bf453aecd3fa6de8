"""Processes that pieces of a job are handed to, and what becomes of a piece."""

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
    """The process that had a piece is gone."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """An expected failure that another try would meet again."""

    error: RomacliError


Outcome = Done | Died | Failed


class Pool(Protocol):
    """Processes by number. One that died is there again, anew, when it is given the next piece."""

    size: int

    def submit(self, worker: int, pairs: Sequence[Pair]) -> None: ...

    def outcomes(self, timeout_s: float) -> Iterator[tuple[int, Outcome]]:
        """What became of pieces since the last call, after waiting a while for the first."""
        ...

    def close(self) -> None:
        """End the processes, after the batches they are at."""
        ...
