"""Estimate the cost of a job before it starts: timed on a grey image, planned for the real pairs."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from romacli.job.job import Job
from romacli.run.match import images_that_fit
from romacli.run.schedule import plan
from romacli.types import CompactWarp, PairResult

# Two directions of 140 x 140 nodes, five bytes each.
USUAL_RECORD_BYTES = 2 * 140 * 140 * 5
GRAY = np.full((480, 640, 3), 128, np.uint8)


@dataclass(frozen=True)
class Estimate:
    """Counts of a job, and the remaining seconds and bytes. `capacity`: images whose features are cached."""

    images: int
    pairs: int
    remaining: int
    encodes: int
    encodes_per_pair: float
    capacity: int
    seconds: float
    journal_bytes: int


def estimate(job: Job) -> Estimate:
    """Plan the remaining pairs, and time one blank image and pair."""
    todo = job.remaining()
    if not todo.pairs:
        return Estimate(len(job.images), len(job.pairs), 0, 0, 0.0, 0, 0.0, 0)
    prepared = job.matcher.prepare(GRAY)
    job.matcher.encode([prepared])
    start = time.monotonic()
    features = job.matcher.encode([prepared])[0]
    encoded = time.monotonic()
    result = job.matcher.match([(features, features)], [0])[0]
    matched = time.monotonic()
    options = job.options.match
    capacity = images_that_fit(job.matcher, options, features.nbytes)
    encodes = plan(todo.pairs, capacity).num_encodes
    seconds = encodes * (encoded - start) + len(todo) * (matched - encoded)
    return Estimate(
        images=len(job.images),
        pairs=len(job.pairs),
        remaining=len(todo),
        encodes=encodes,
        encodes_per_pair=round(encodes / len(todo), 4),
        capacity=capacity,
        seconds=seconds,
        journal_bytes=len(todo) * _record_bytes(result),
    )


def _record_bytes(result: PairResult) -> int:
    """The journal's bytes for a matched pair, as a grey image may be rejected against itself."""
    if not isinstance(result, CompactWarp):
        return USUAL_RECORD_BYTES
    return sum(array.nbytes for array in vars(result).values() if isinstance(array, np.ndarray))
