"""The benchmarks by name."""

from __future__ import annotations

from typing import Any

from romacli.errors import UsageError
from romacli.eval.benchmarks.benchmark import Benchmark
from romacli.eval.benchmarks.places.rows import PLACE_ROWS
from romacli.eval.benchmarks.points.rows import POINT_ROWS
from romacli.eval.benchmarks.rows import dense, marked, poses
from romacli.eval.benchmarks.scenes.rows import SCENE_ROWS

BENCHMARKS: dict[str, Benchmark] = {
    row.name: row for row in (*poses.ROWS, *marked.ROWS, *dense.ROWS, *SCENE_ROWS, *PLACE_ROWS, *POINT_ROWS)
}


def evaluation_named(benchmark: Benchmark, name: str | None) -> tuple[str, Any]:
    """The name and protocol of a benchmark, the usual one for None.

    Raises:
        UsageError: it has no such protocol.
    """
    known = benchmark.evaluations
    name = name or next(iter(known))
    if name not in known:
        raise UsageError(f"--protocol {name} is not known to {benchmark.name}. Choose from: {', '.join(known)}.")
    return name, known[name]
