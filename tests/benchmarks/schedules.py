"""Loads and planning time of schedules on typical lists of pairs. Simulated, deterministic given the seed.

Usage: python tests/benchmarks/schedules.py [--images 10000] [--seed 0] [--only retrieval]
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

from romacli.run.schedule import fewest_loads, plan
from romacli.types import Pair


def exhaustive(count: int) -> list[Pair]:
    return [(str(a), str(b)) for a, b in itertools.combinations(range(count), 2)]


def sequential(count: int, *, overlap: int = 10, every: int = 10, revisits: int = 30, seed: int = 0) -> list[Pair]:
    """A walk that crosses its own path: each image with the next ones, every tenth with those nearest to it."""
    turn = np.linspace(0, 2 * np.pi * max(1, count / 1500), count)
    walk = np.stack([np.sin(3.03 * turn), np.sin(4.01 * turn)], 1)
    walk += np.random.default_rng(seed).normal(0, 0.003, walk.shape)
    onward = [(a, b) for a in range(count) for b in range(a + 1, min(a + overlap + 1, count))]
    queries = np.arange(0, count, every)
    return _unique(onward + _to_nearest(walk, queries, revisits))


def retrieval(count: int, *, neighbours: int = 20, wrong: float = 0.0, seed: int = 0) -> list[Pair]:
    """Each image in a square with those nearest to it, a share of which is replaced by random ones."""
    random = np.random.default_rng(seed)
    edges = np.array(_to_nearest(random.random((count, 2)), np.arange(count), neighbours))
    bad = random.random(len(edges)) < wrong
    edges[bad, 1] = random.integers(0, count, bad.sum())
    return _unique([(a, b) for a, b in edges.tolist()])


def _to_nearest(places: np.ndarray, queries: np.ndarray, neighbours: int) -> list[tuple[int, int]]:
    _, nearest = cKDTree(places).query(places[queries], k=neighbours + 1)
    return [(int(a), int(b)) for a, row in zip(queries, nearest, strict=True) for b in row[1:]]


def _unique(edges: list[tuple[int, int]]) -> list[Pair]:
    return [(str(a), str(b)) for a, b in dict.fromkeys((min(edge), max(edge)) for edge in edges if edge[0] != edge[1])]


def cases(count: int, seed: int) -> Iterator[tuple[str, list[Pair], tuple[int, ...]]]:
    for size in (200, 350, 500, 650, 800, 1000):
        yield f"exhaustive {size}", exhaustive(size), (30, 100, 300)
    yield f"sequential {count}", sequential(count, seed=seed), (50, 100, 200, 1000)
    yield f"retrieval k=20 {count}", retrieval(count, seed=seed), (30, 100, 300)
    yield f"retrieval k=20, 10 % wrong {count}", retrieval(count, wrong=0.1, seed=seed), (100, 300, 1000)
    yield f"retrieval k=50, 10 % wrong {count}", retrieval(count, neighbours=50, wrong=0.1, seed=seed), (300,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="seed of the lists that are not exhaustive")
    parser.add_argument("--only", default="", help="only cases whose name begins with this")
    options = parser.parse_args()
    print(
        "| pairs | capacity | loads a pair | times the lower bound | CPU microseconds a pair |\n|---|---|---|---|---|"
    )
    for name, pairs, capacities in cases(options.images, options.seed):
        if not name.startswith(options.only):
            continue
        images = len({image for pair in pairs for image in pair})
        for capacity in capacities:
            if capacity >= images:
                continue
            start = time.process_time()
            loads = plan(pairs, capacity).num_encodes
            each = (time.process_time() - start) / len(pairs) * 1e6
            bound = fewest_loads(images, len(pairs), capacity)
            row = (name, capacity, f"{loads / len(pairs):.4f}", f"{loads / bound:.3f}", f"{each:.0f}")
            print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    main()
