"""Local processes, one per GPU, that match pieces of a job and report progress by pipe."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from romacli.errors import RomacliError
from romacli.progress import Progress
from romacli.run.pool import Outcome
from romacli.run.worker import Worker, WorkerSetup
from romacli.stop import Stopped, StopRequest, stop_signals
from romacli.types import Pair

_SPAWN = multiprocessing.get_context("spawn")
_LOOK_EVERY_S = 0.05


class LocalPool:
    """`num_processes` processes, each started with its first piece."""

    def __init__(self, setup: WorkerSetup, num_processes: int | None, progress: Progress) -> None:
        self._devices = _devices(setup.matcher.device)
        self.size = num_processes or len(self._devices)
        self._setup, self._progress = setup.sharing(-(-self.size // len(set(self._devices)))), progress
        self._processes: dict[int, tuple[SpawnProcess, Connection]] = {}

    def submit(self, worker: int, pairs: Sequence[Pair]) -> None:
        if worker not in self._processes:
            self._processes[worker] = self._start(worker)
        with suppress(OSError):  # `outcomes` detects one that died idle
            self._processes[worker][1].send(list(pairs))

    def outcomes(self, timeout_s: float) -> Iterator[tuple[int, Outcome]]:
        """The outcomes so far. All messages of a process are read before it counts as dead, so that none is lost."""
        workers = {connection: worker for worker, (_, connection) in self._processes.items()}
        for ready in wait(list(workers), timeout_s):
            assert isinstance(ready, Connection)
            worker = workers[ready]
            try:
                while ready.poll():
                    message = ready.recv()
                    if isinstance(message, int):
                        self._progress.advance(message)
                    else:
                        yield worker, message
                        break
            except (EOFError, OSError):
                yield worker, self._buried(worker)

    def close(self) -> None:
        for process, _ in self._processes.values():
            process.terminate()
        for process, connection in self._processes.values():
            process.join()
            connection.close()
        self._processes.clear()

    def _start(self, worker: int) -> tuple[SpawnProcess, Connection]:
        ours, theirs = _SPAWN.Pipe()
        device = self._devices[worker % len(self._devices)]
        setup = replace(self._setup, matcher=replace(self._setup.matcher, device=device))
        threads = max(1, (os.cpu_count() or 1) // self.size)
        process = _SPAWN.Process(target=_work, args=(setup, theirs, threads), name=f"romacli-{worker}")
        process.start()
        theirs.close()
        return process, ours

    def _buried(self, worker: int) -> str:
        """Remove a dead process and return how it ended."""
        process, connection = self._processes.pop(worker)
        process.join()
        connection.close()
        code = process.exitcode or 0
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _work(setup: WorkerSetup, connection: Any, threads: int) -> None:
    """The main function of a process: match pieces and report outcomes until the driver stops or dies."""
    import torch

    torch.set_num_threads(threads)
    stop = StopRequest()
    for number in stop_signals():
        signal.signal(number, lambda number, _: stop.set(number))
    threading.Thread(target=_end_with_driver, args=(stop,), daemon=True).start()
    try:
        with stop.at_once():
            worker = Worker(setup)
        while True:
            with stop.at_once():
                pairs = connection.recv()
            connection.send(worker.run(pairs, advance=connection.send, stop=stop))
    except (Stopped, EOFError, OSError):
        return
    except RomacliError as error:
        connection.send(error)


def _end_with_driver(stop: StopRequest) -> None:
    """End after the current batch if the driver was killed."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    stop.signal_number = signal.SIGTERM
    time.sleep(60)
    os._exit(1)


def _devices(device: str) -> list[str]:
    """The devices assigned to processes in turn."""
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [device]
