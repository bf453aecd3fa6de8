"""Shards of a job for independent machines, split the same way on each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from romacli.disk import write_whole
from romacli.errors import StoreError
from romacli.run.options import Shard
from romacli.run.schedule import plan
from romacli.store.lease import Work
from romacli.types import Pair

# Capacity, in images, of a plan for shards: RoMa's features of these take some 10 GB, which suits most GPUs.
CAPACITY = 100


def order_of_work(pairs: Sequence[Pair], capacity: int = CAPACITY) -> list[Pair]:
    """The pairs ordered so that neighbours share images, by a plan that depends only on its arguments."""
    return [pair for step in plan(pairs, capacity).steps for pair in step.pairs]


def piece(order: Sequence[Pair], shard: Shard) -> tuple[Pair, ...]:
    """A contiguous part of an order; the parts of all shards cover it, and their lengths differ by at most one."""
    start, end = (len(order) * index // shard.count for index in (shard.index, shard.index + 1))
    return tuple(order[start:end])


def shard_work(shard: Shard, pairs: Sequence[Pair], capacity: int) -> Work:
    """The work of a shard, from which others see whether they use the same split."""
    digest = hashlib.sha256(json.dumps([shard.count, capacity, list(pairs)]).encode()).hexdigest()
    return Work(f"shard-{shard.index}-of-{shard.count}", digest)


def recorded_capacity(path: Path) -> int:
    """The capacity that the job's shards were planned with; the default if not recorded yet.

    Raises:
        StoreError: the record is damaged.
    """
    try:
        capacity = json.loads(path.read_text(encoding="utf-8"))["capacity"]
    except FileNotFoundError:
        return CAPACITY
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        capacity = None
    if not isinstance(capacity, int) or capacity < 2:
        raise StoreError(f"{path} is damaged. Delete it once no shard of the job is running.")
    return capacity


def record_capacity(path: Path, capacity: int) -> None:
    """Record the capacity for later shards."""
    if not path.exists():
        write_whole(path, json.dumps({"capacity": capacity}) + "\n")
