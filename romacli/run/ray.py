"""Actors of a Ray cluster that match pieces of a job, each with its own journal on a shared file system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from romacli.errors import RomacliError, UsageError
from romacli.progress import Progress
from romacli.run.pool import Outcome
from romacli.run.worker import Worker, WorkerSetup
from romacli.types import Pair


class Actor:
    """A worker that returns outcomes instead of raising."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._worker: Worker | None = None

    def run(self, pairs: Sequence[Pair]) -> Outcome:
        try:
            if self._worker is None:
                self._worker = Worker(self._setup)
            return self._worker.run(pairs)
        except RomacliError as error:
            return error


class RayPool:
    """Actors on the cluster named by RAY_ADDRESS, or on one started on this machine.

    The driver uses no cluster resources; each actor takes a GPU, or a CPU if there are none. CPU actors that may run on
    the same node divide its memory.

    Raises:
        UsageError: Ray is not installed.
    """

    def __init__(self, setup: WorkerSetup, num_processes: int | None, progress: Progress) -> None:
        self._ray = load_ray()
        self._progress = progress
        if not self._ray.is_initialized():
            self._ray.init(log_to_driver=False, logging_level="error", include_dashboard=False)
        resources = self._ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        self._takes = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": 1}
        room = gpus or int(resources.get("CPU", 1))
        self.size = min(num_processes or room, room)
        on_gpus = gpus and setup.matcher.device != "cpu"
        self._setup = setup.sharing(1 if on_gpus else self._most_on_a_node("GPU" if gpus else "CPU"))
        self._actors: dict[int, Any] = {}
        self._running: dict[Any, tuple[int, int]] = {}

    def _most_on_a_node(self, resource: str) -> int:
        """The most actors, each with one unit of a resource, that may share a node's memory."""
        held = [int(node["Resources"].get(resource, 0)) for node in self._ray.nodes() if node["Alive"]]
        return max(1, min(self.size, max(held, default=1)))

    def submit(self, worker: int, pairs: Sequence[Pair]) -> None:
        if worker not in self._actors:
            actor = self._ray.remote(Actor).options(**self._takes, max_restarts=0)
            self._actors[worker] = actor.remote(self._setup)
        reference = self._actors[worker].run.remote(list(pairs))
        self._running[reference] = worker, len(pairs)

    def outcomes(self, timeout_s: float) -> Iterator[tuple[int, Outcome]]:
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        for reference in ready:
            worker, count = self._running.pop(reference)
            try:
                outcome = self._ray.get(reference)
                self._progress.advance(count)
            except self._ray.exceptions.RayActorError as error:
                self._ray.kill(self._actors.pop(worker))
                outcome = str(error).split("\n", 1)[0]
            yield worker, outcome

    def close(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._ray.shutdown()


def load_ray() -> Any:
    """Import Ray.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return import_module("ray")
    except ImportError as error:
        raise UsageError("--engine ray needs Ray. Install it: pip install 'romacli[ray]'.") from error
