"""Share of true overlaps in lists of pairs chosen by appearance, at random and in sequence; quality of coarse scores.

PYTHONPATH=. python tests/benchmarks/retrieval.py recall --walks 8 --views 20 --photographs FOLDER MODEL
PYTHONPATH=. python tests/benchmarks/retrieval.py preselect --walks 3 --views 20
PYTHONPATH=. python tests/benchmarks/retrieval.py scale --images 2000 100000
"""

from __future__ import annotations

import argparse
import resource
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import retrieval_scenes as scenes

from romacli.matchers.registry import load_matcher
from romacli.pairs.retrieval import RetrievalOptions, retrieve
from romacli.pairs.sequential import sequential
from romacli.types import PairList

PER_IMAGE = (3, 5, 10, 20)
# For a pair worth matching: less is hard for any matcher.
MIN_OVERLAP = 0.3
DESCRIPTOR_LENGTH = 384
THRESHOLDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
TRUE_OVERLAPS = (0.5, 0.3, 0.1)


def describe(images: tuple[np.ndarray, ...], model: str) -> np.ndarray:
    matcher = load_matcher(model)
    return np.concatenate([matcher.describe([matcher.prepare(image)]) for image in images])


def share_found(pairs: PairList, collection: scenes.Collection, least: float) -> float:
    row_of = {name: row for row, name in enumerate(collection.names)}
    found = sum(collection.overlap[row_of[a], row_of[b]] >= least for a, b in pairs.pairs)
    return found / np.count_nonzero(np.triu(collection.overlap >= least))


def random_pairs(names: tuple[str, ...], count: int, seed: int) -> PairList:
    everything = list(combinations(names, 2))
    chosen = np.random.default_rng(seed).choice(len(everything), min(count, len(everything)), replace=False)
    return PairList(tuple(everything[index] for index in chosen))


def recall(title: str, collection: scenes.Collection, model: str) -> None:
    descriptors = describe(collection.images, model)
    true = np.count_nonzero(np.triu(collection.overlap >= MIN_OVERLAP))
    print(f"\n{title}: {len(collection.names)} images, {true} true pairs (overlap {MIN_OVERLAP} or more)\n")
    print(
        "| per image | pairs | retrieval | whitened | random, as many | in order: pairs | in order |\n"
        "|---|---|---|---|---|---|---|"
    )
    for k in PER_IMAGE:
        if k >= len(collection.names):
            break
        lists = [retrieve(collection.names, descriptors, RetrievalOptions(k, whiten=w)) for w in (False, True)]
        by_chance = np.mean(
            [
                share_found(random_pairs(collection.names, len(lists[0]), seed), collection, MIN_OVERLAP)
                for seed in range(10)
            ]
        )
        in_order = sequential(collection.names, overlap=k)
        shares = [share_found(pairs, collection, MIN_OVERLAP) for pairs in (*lists, in_order)]
        print(
            f"| {k} | {len(lists[0])} | {shares[0]:.2f} | {shares[1]:.2f} | {by_chance:.2f} | {len(in_order)} "
            f"| {shares[2]:.2f} |"
        )


def preselect(collection: scenes.Collection, model: str) -> None:
    matcher = load_matcher(model)
    features = [matcher.encode_coarse([matcher.prepare(image)])[0] for image in collection.images]
    pairs = list(combinations(range(len(features)), 2))
    start = time.process_time()
    scores = np.array([matcher.overlap([(features[i], features[j])])[0] for i, j in pairs])
    seconds = time.process_time() - start
    overlap = np.array([collection.overlap[pair] for pair in pairs])
    counts = ", ".join(f"{np.count_nonzero(overlap >= least)} overlap by {least}" for least in TRUE_OVERLAPS)
    least_default = matcher.settings["min_coarse_overlap"]
    print(f"\n{len(pairs)} candidates, {counts}, {np.count_nonzero(overlap == 0)} do not; ", end="")
    print(f"{1000 * seconds / len(pairs):.0f} ms of CPU each; refined from a score of {least_default:g} by default\n")
    for line in curve(scores, overlap):
        print(line)
    for least in TRUE_OVERLAPS:
        lowest = np.sort(scores[overlap >= least])[:5]
        print(f"lowest scores of overlaps {least}: " + " ".join(f"{score:.4f}" for score in lowest))


def curve(scores: np.ndarray, overlap: np.ndarray) -> list[str]:
    """Table rows: for each threshold on the coarse score, the share saved, the share worth matching, and those kept."""
    lines = [
        "| keep from | not refined | precision | of overlaps 0.5 | of 0.3 | of 0.1 | of none |",
        "|---|---|---|---|---|---|---|",
    ]
    for least in THRESHOLDS:
        kept = scores >= least
        parts = [kept[overlap >= truth] for truth in TRUE_OVERLAPS] + [kept[overlap == 0]]
        shares = [1 - kept.mean(), (overlap[kept] >= MIN_OVERLAP).mean() if kept.any() else np.nan]
        shares += [part.mean() if len(part) else np.nan for part in parts]
        lines.append(f"| {least} | " + " | ".join("" if np.isnan(s) else f"{s:.2f}" for s in shares) + " |")
    return lines


def scale(count: int, k: int = 20) -> None:
    rows = np.random.default_rng(0).normal(size=(count, DESCRIPTOR_LENGTH)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"{index:07}.jpg" for index in range(count)]
    start = time.perf_counter()
    pairs = retrieve(names, rows, RetrievalOptions(k))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"| {count:,} | {len(pairs):,} | {seconds:.1f} s | {peak:.2f} GB |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["recall", "preselect", "scale"])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--walks", type=int, default=8)
    parser.add_argument("--views", type=int, default=20)
    parser.add_argument("--photographs", nargs=2, type=Path, action="append", default=[], metavar=("FOLDER", "MODEL"))
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 100_000])
    options = parser.parse_args()
    if options.what == "scale":
        print("| images | pairs | time | peak memory |\n|---|---|---|---|")
        for count in options.images:
            scale(count)
        return
    walks = [scenes.rendered_walk(100 + seed, options.views) for seed in range(options.walks)]
    taken = [scenes.photographs(folder, model) for folder, model in options.photographs]
    sets = {"rendered walks": walks, "photographs": taken}
    for title, parts in sets.items():
        if parts and options.what == "recall":
            recall(title, scenes.joined(parts), options.model)
        elif parts:
            print(f"\n{title}:")
            preselect(scenes.joined(parts), options.model)


if __name__ == "__main__":
    main()
