"""Threads around the loop: images are decoded ahead of it, records are written behind it."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from romacli.errors import RomacliError
from romacli.types import Pair, PairResult

T = TypeVar("T")

RECORD_BATCHES_AHEAD = 8


class Prefetched(Generic[T]):
    """The results of `load(name)` for each name in turn, computed ahead by a bounded number of threads.

    An expected error of one name is passed in its place, so that the others continue.
    """

    def __init__(self, names: Iterable[str], load: Callable[[str], T], *, workers: int, ahead: int) -> None:
        self._names = iter(names)
        self._load = load
        self._pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode")
        self._pending: deque[tuple[str, Future[T]]] = deque()
        self._ahead = max(1, ahead)

    def __enter__(self) -> Prefetched[T]:
        self._fill()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def take(self, name: str) -> T | RomacliError:
        """The result for `name`, which must be the next name."""
        expected, future = self._pending.popleft()
        assert expected == name, f"{name} requested, but {expected} is next"
        self._fill()
        try:
            return future.result()
        except RomacliError as error:
            return error

    def _fill(self) -> None:
        while len(self._pending) < self._ahead:
            name = next(self._names, None)
            if name is None:
                return
            self._pending.append((name, self._pool.submit(self._load, name)))


class RecordThread:
    """Appends batches of results in the background; errors are raised at the next call."""

    def __init__(self, append: Callable[[Sequence[tuple[Pair, PairResult]]], None]) -> None:
        self._append = append
        self._queue: queue.Queue[Sequence[tuple[Pair, PairResult]] | None] = queue.Queue(RECORD_BATCHES_AHEAD)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)

    def __enter__(self) -> RecordThread:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Write queued results, regardless of how the loop ended."""
        self._queue.put(None)
        self._thread.join()
        self._raise()

    def put(self, results: Sequence[tuple[Pair, PairResult]]) -> None:
        self._raise()
        self._queue.put(results)

    def _run(self) -> None:
        for results in iter(self._queue.get, None):
            if self._error is None:
                try:
                    self._append(results)
                except BaseException as error:
                    self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
