"""How pairs are matched: the loop's options, and those of the processes it runs in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from romacli.errors import UsageError
from romacli.options import Choice, Option, Panel

BatchSize = Annotated[
    int | None, Option("Pairs matched at once; more need more memory. Default: 4 on a GPU, 1 on a CPU.", min=1)
]
CacheGb = Annotated[
    float | None,
    Option(
        "Memory in GB for what is computed once an image. Less than the job needs computes it again: see "
        "encodes in --dry-run. Default: what the device has free.",
        min=0,
    ),
]
NumWorkers = Annotated[int, Option("Threads that read photographs ahead.", min=1)]


class TryRotations(Choice):
    auto = "auto"
    always = "always"
    never = "never"


@dataclass(frozen=True)
class MatchOptions:
    """How the loop runs; seed and `retries` alone change what a pair's result is, up to rounding in batches.

    batch_size: pairs matched at once; None leaves it to the matcher. The first stage of a matcher that has one takes as
        many times more as that matcher likes.
    cache_gb: room for features, None for what the device has free. Below the whole job's need, images are encoded
        more than once.
    num_workers: threads that decode and resize.
    seed: of every random choice, together with the two names.
    try_rotations: the loop itself tries rotations where it is `always`; `auto` leaves that to a second look.
    try_scales: try weak pairs again with parts of their photographs enlarged.
    rescue: begin weak pairs again from verified SIFT matches.
    strict: stop at the first photograph that cannot be read.
    processes: how many share the device's memory.
    """

    panel: ClassVar[Panel] = Panel.running

    batch_size: BatchSize = None
    cache_gb: CacheGb = None
    num_workers: NumWorkers = 2
    seed: Annotated[int, Option("Seed of every random choice.", min=0)] = 0
    try_rotations: Annotated[
        TryRotations,
        Option(
            "Try photographs turned by 90, 180 and 270 degrees: auto, those that hardly match anything, at the "
            "coarse stage and against few partners; always, the second of each pair that is rejected or overlaps by "
            "less than 10 %, which takes up to four times as long; never. What EXIF says is followed anyway."
        ),
    ] = TryRotations.auto
    try_scales: Annotated[
        bool,
        Option(
            "Try pairs that are rejected or overlap by less than 25 % with parts of either photograph enlarged, for "
            "photographs from near and far: parts are found at the coarse stage, and the best is matched."
        ),
    ] = False
    rescue: Annotated[
        bool,
        Option(
            "Begin pairs that are rejected or overlap by less than 10 % again from SIFT's matches where 30 of these "
            "agree on one motion, for photographs from far apart. Takes about a second a photograph and as long as "
            "matching a pair that verifies."
        ),
    ] = False
    strict: Annotated[bool, Option("Stop at the first photograph that cannot be read, instead of going on.")] = False
    processes: int = 1

    @property
    def retries(self) -> dict[str, Any]:
        """The ways in which the loop tries pairs again, as manifests keep them."""
        return {
            "try_rotations": self.turns_every_pair or None,
            "try_scales": self.try_scales or None,
            "rescue": self.rescue or None,
        }

    @property
    def turns_every_pair(self) -> bool:
        """Whether the loop tries each rejected or weak pair again with its second photograph turned."""
        return self.try_rotations is TryRotations.always


class Changed(Choice):
    """What to do about photographs that changed since they were matched."""

    refuse = "refuse"
    rematch = "rematch"
    keep = "keep"


class EngineName(Choice):
    local = "local"
    ray = "ray"


@dataclass(frozen=True)
class EngineOptions:
    """Where pieces are matched: in this process alone, unless an engine or a number of processes is given.

    num_processes: None for one on each GPU, or one where there is none.
    """

    panel: ClassVar[Panel] = Panel.running

    engine: Annotated[
        EngineName | None,
        Option(
            "Match in several processes: local, one on each GPU of this machine; ray, on a Ray cluster "
            "(pip install 'romacli[ray]'). Default: in this process alone.",
        ),
    ] = None
    num_processes: Annotated[
        int | None,
        Option("Processes of --engine, local where none is named. Each holds the model. Default: one a GPU.", min=1),
    ] = None

    @property
    def name(self) -> EngineName | None:
        """The engine, None for this process alone."""
        return EngineName.local if self.engine is None and self.num_processes is not None else self.engine


@dataclass(frozen=True)
class Shard:
    """Piece `index`, from 0, of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """A piece written as i/n.

    Raises:
        UsageError: it is no piece.
    """
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip(), re.ASCII)
    if not match or not int(match[1]) < int(match[2]):
        raise UsageError(f"--shard {text} is no piece of a job. Write i/n, with i from 0 to n - 1, such as 0/8.")
    return Shard(int(match[1]), int(match[2]))
