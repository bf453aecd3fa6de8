"""Pieces of a job for machines that know nothing of one another: the same cut wherever it is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from romacli.errors import StoreError
from romacli.run.options import Shard
from romacli.run.schedule import plan
from romacli.store.layout import written_whole
from romacli.store.lease import Work
from romacli.types import Pair

# Images a plan for shards holds at once: what RoMa's features of take some 10 GB, so that a piece suits most GPUs.
CAPACITY = 100


def order_of_work(pairs: Sequence[Pair], capacity: int = CAPACITY) -> list[Pair]:
    """The pairs so that neighbours share images, by a plan that depends on nothing but its arguments."""
    return [pair for step in plan(pairs, capacity).steps for pair in step.pairs]


def piece(order: Sequence[Pair], shard: Shard) -> tuple[Pair, ...]:
    """A contiguous part of an order; the parts of all shards make the whole, and differ by one pair in length."""
    start, end = (len(order) * index // shard.count for index in (shard.index, shard.index + 1))
    return tuple(order[start:end])


def shard_work(shard: Shard, pairs: Sequence[Pair], capacity: int) -> Work:
    """What a shard does, so that others know whether they cut as it does."""
    digest = hashlib.sha256(json.dumps([shard.count, capacity, list(pairs)]).encode()).hexdigest()
    return Work(f"shard-{shard.index}-of-{shard.count}", digest)


def recorded_capacity(path: Path) -> int:
    """The capacity that the job's shards were first planned with, ours where there is no record yet.

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
    """Note the capacity for shards to come."""
    if not path.exists():
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps({"capacity": capacity}) + "\n", encoding="utf-8")
