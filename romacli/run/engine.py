"""Run one job in several processes: pieces go to idle processes and are reassigned if one dies.

Processes share only the journals. A process that dies loses its current batch, and the rest of its piece goes to
another; if the driver dies, running the same command again resumes the job.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from romacli.errors import RomacliError
from romacli.pairs.listfile import write_pairs
from romacli.progress import Progress
from romacli.run.match import MatchSummary
from romacli.run.options import EngineName, EngineOptions, Shard
from romacli.run.pool import Pool
from romacli.run.shard import order_of_work, piece
from romacli.run.worker import WorkerSetup
from romacli.stop import StopRequest
from romacli.types import Pair, PairList, canonical
from romacli.words import counted

PIECES_PER_WORKER = 8
FEWEST_PAIRS = 16
MOST_FAILURES = 3
_LOOK_EVERY_S = 0.5


@dataclass
class _Piece:
    pairs: Sequence[Pair]
    failures: int = 0


def check_engine(options: EngineOptions) -> None:
    """Check, before anything is written, that an engine is installed.

    Raises:
        UsageError: it is not.
    """
    if options.name == EngineName.ray:
        from romacli.run.ray import load_ray

        load_ray()


def match_in_parallel(
    setup: WorkerSetup,
    todo: PairList,
    options: EngineOptions,
    remaining: Callable[[], Sequence[Pair]],
    given_up: Path,
    check: Callable[[], None],
    progress: Progress,
    stop: StopRequest,
) -> MatchSummary:
    """Match pairs in several processes; the summary's counts are those of this run.

    remaining: the pairs without a record. given_up: the file that lists the pairs given up. check: called
    periodically; may raise to end the run.

    Raises:
        RomacliError: an error of a process that would recur in another.
        Stopped: by a signal, after every process has finished its batch.
    """
    progress.begin("matching", len(todo))
    pool = _start(setup, options, progress)
    try:
        summary = run_pieces(_cut(todo.pairs, pool.size), pool, remaining, check=check, progress=progress, stop=stop)
    finally:
        pool.close()
    if summary.given_up:
        write_pairs(given_up, PairList(summary.given_up))
    return summary


def run_pieces(
    pieces: Sequence[Sequence[Pair]],
    pool: Pool,
    remaining: Callable[[], Sequence[Pair]],
    *,
    check: Callable[[], None] = lambda: None,
    progress: Progress,
    stop: StopRequest,
) -> MatchSummary:
    """Hand out every piece until it is done, or has ended `MOST_FAILURES` processes.

    remaining: the pairs of the job without a record, queried when a process died.
    """
    total = MatchSummary(pairs=sum(map(len, pieces)))
    waiting = deque(_Piece(pairs) for pairs in pieces)
    busy: dict[int, _Piece] = {}
    while waiting or busy:
        stop.check()
        check()
        for worker in range(pool.size):
            if waiting and worker not in busy:
                busy[worker] = waiting.popleft()
                pool.submit(worker, busy[worker].pairs)
        for worker, outcome in pool.outcomes(_LOOK_EVERY_S):
            given = busy.pop(worker)
            if isinstance(outcome, MatchSummary):
                _add(total, outcome)
            elif isinstance(outcome, RomacliError):
                raise outcome
            else:
                _try_again(given, outcome, waiting, total, remaining, progress)
    return total


def _try_again(
    given: _Piece,
    reason: str,
    waiting: deque[_Piece],
    total: MatchSummary,
    remaining: Callable[[], Sequence[Pair]],
    progress: Progress,
) -> None:
    """Requeue the rest of a piece, or give it up."""
    left = set(map(canonical, remaining()))
    pairs = [pair for pair in given.pairs if canonical(pair) in left]
    failures = given.failures + 1
    if failures < MOST_FAILURES:
        progress.warn(
            f"a process died ({reason}); its remaining {counted(len(pairs), 'pair goes', 'pairs go')} to another"
        )
        waiting.append(_Piece(pairs, failures))
        return
    progress.warn(
        f"{counted(len(pairs), 'pair is', 'pairs are')} given up after {failures} processes died on them ({reason})"
    )
    total.given_up = (*total.given_up, *pairs)
    total.failed += len(pairs)


def _add(total: MatchSummary, summary: MatchSummary) -> None:
    total.matched += summary.matched
    total.turned += summary.turned
    total.found_by.update(summary.found_by)
    total.rejected += summary.rejected
    total.failed += summary.failed
    total.run += summary.run
    total.run_in.update(summary.run_in)
    total.encodes += summary.encodes
    total.seconds += summary.seconds
    total.failures.update(summary.failures)
    total.flat |= summary.flat


def _cut(pairs: Sequence[Pair], workers: int) -> list[Sequence[Pair]]:
    """Contiguous pieces of a plan, several per process, so that all finish at about the same time."""
    order = order_of_work(pairs)
    count = max(1, min(PIECES_PER_WORKER * workers, len(order) // FEWEST_PAIRS))
    return [piece(order, Shard(index, count)) for index in range(count)]


def _start(setup: WorkerSetup, options: EngineOptions, progress: Progress) -> Pool:
    if options.name == EngineName.ray:
        from romacli.run.ray import RayPool

        return RayPool(setup, options.num_processes, progress)
    from romacli.run.local import LocalPool

    return LocalPool(setup, options.num_processes, progress)
