"""Options of the matching loop and of the processes it runs in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from romacli.errors import UsageError
from romacli.options import Choice, Option, Panel

BatchSize = Annotated[
    int | None, Option("Pairs per batch; larger batches need more memory. Default: 4 on a GPU, 1 on a CPU.", min=1)
]
CacheGb = Annotated[
    float | None,
    Option(
        "Memory in GB for cached image features. With less than the job needs, images are encoded more than once: "
        "see encodes in --dry-run. Default: the device's free memory.",
        min=0,
    ),
]
NumWorkers = Annotated[int, Option("Threads that prefetch photographs.", min=1)]


# The overlap below which each retry applies to a pair, by the option's name. Rotations: photographs of a facade
# overlapped by up to 4 % upside down and by at least 20 % upright (mini, 6 of them at half resolution). Scales: copies
# enlarged by 3 overlapped by up to 40 %, by 2.5 at least 51 % (mini, six photographs).
WEAK_OVERLAP = {"try_rotations": 0.1, "try_scales": 0.45, "rescue": 0.1, "rescue_from": 0.1}


class Try(Choice):
    auto = "auto"
    always = "always"
    never = "never"


@dataclass(frozen=True)
class MatchOptions:
    """How the loop runs. Only the seed and `retries` change a pair's result, apart from rounding in batches.

    try_rotations, try_scales, rescue: the loop itself retries pairs if `always`; `auto` leaves that to a later pass.
    processes: number of processes that share the device's memory.
    """

    panel: ClassVar[Panel] = Panel.running

    batch_size: BatchSize = None
    cache_gb: CacheGb = None
    num_workers: NumWorkers = 2
    seed: Annotated[int, Option("Seed of every random choice.", min=0)] = 0
    try_rotations: Annotated[
        Try,
        Option(
            "Try photographs rotated by 90, 180 and 270 degrees. auto: those that hardly match anything, at the "
            "coarse stage against a few partners. always: the second photograph of each pair that is rejected or "
            f"overlaps by less than {100 * WEAK_OVERLAP['try_rotations']:.0f} %, which takes up to four times as long. "
            "EXIF orientation is always applied."
        ),
    ] = Try.auto
    try_scales: Annotated[
        Try,
        Option(
            "Retry pairs with parts of either photograph enlarged, for large differences in scale: parts are compared "
            "at the coarse stage, and the best is matched. auto: up to a tenth of the pairs, or five, between "
            "photographs that would otherwise fall into separate groups. always: all that are rejected or overlap by "
            f"less than {100 * WEAK_OVERLAP['try_scales']:.0f} %. A pair that is tried costs up to four others."
        ),
    ] = Try.auto
    rescue: Annotated[
        Try,
        Option(
            "Retry pairs starting from their SIFT matches if at least 30 are inliers of one epipolar geometry, for "
            "wide baselines. auto: up to a fifth of the pairs, between photographs that would otherwise fall into "
            "separate groups. always: all that are rejected or overlap by less than "
            f"{100 * WEAK_OVERLAP['rescue']:.0f} %. Costs up to a second per photograph, and another match per pair "
            "that qualifies."
        ),
    ] = Try.auto
    rescue_from: Annotated[
        Path | None,
        Option(
            "The same, starting from the matches in the features.h5 and matches.h5 of this folder, such as a job of "
            "aliked-lightglue or the output of hloc.",
            metavar="DIR",
        ),
    ] = None
    strict: Annotated[bool, Option("Stop at the first unreadable photograph instead of continuing without it.")] = False
    processes: int = 1

    @property
    def retries(self) -> dict[str, Any]:
        """How the loop retries pairs, as stored in manifests."""
        return {
            "try_rotations": self.turns_every_pair or None,
            "try_scales": self.scales_every_pair or None,
            "rescue": self.rescues_every_pair or None,
            "rescue_from": self.rescue_from is not None or None,
        }

    @property
    def turns_every_pair(self) -> bool:
        """Whether the loop retries each rejected or weak pair with its second photograph rotated."""
        return self.try_rotations is Try.always

    @property
    def scales_every_pair(self) -> bool:
        """Whether the loop retries each rejected or weak pair with parts of its photographs enlarged."""
        return self.try_scales is Try.always

    @property
    def rescues_every_pair(self) -> bool:
        """Whether the loop retries each rejected or weak pair starting from SIFT's matches."""
        return self.rescue is Try.always


class Changed(Choice):
    """What to do if photographs changed since they were matched."""

    refuse = "refuse"
    rematch = "rematch"
    keep = "keep"


class EngineName(Choice):
    local = "local"
    ray = "ray"


@dataclass(frozen=True)
class EngineOptions:
    """Where shards are matched: in this process, unless an engine or a number of processes is given.

    num_processes: None for one per GPU, or one if there is no GPU.
    """

    panel: ClassVar[Panel] = Panel.running

    engine: Annotated[
        EngineName | None,
        Option(
            "Match in several processes: local, one per GPU of this machine; ray, on a Ray cluster (pip install "
            "'romacli[ray]'). Default: in this process."
        ),
    ] = None
    num_processes: Annotated[
        int | None,
        Option(
            "Number of processes of --engine, which is local by default. Each loads the model. Default: one per GPU.",
            min=1,
        ),
    ] = None

    @property
    def name(self) -> EngineName | None:
        """The engine, or None for this process."""
        return EngineName.local if self.engine is None and self.num_processes is not None else self.engine


@dataclass(frozen=True)
class Shard:
    """Shard `index`, counted from 0, of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """Parse a shard written as i/n.

    Raises:
        UsageError: the text is not a valid shard.
    """
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip(), re.ASCII)
    if not match or not int(match[1]) < int(match[2]):
        raise UsageError(f"--shard {text} is not valid. Write i/n, with i from 0 to n - 1, such as 0/8.")
    return Shard(int(match[1]), int(match[2]))
