"""Speed-up of bfloat16 over float32 on a CPU and the difference of its warps, in one run, pair by pair.

    PYTHONPATH=.:tests python tests/benchmarks/bfloat16.py --images 4 --coarse 224 --upsample 320 --json bfloat16.json
    PYTHONPATH=.:tests python tests/benchmarks/bfloat16.py PHOTOGRAPHS --model mini

Errors are distances between the targets of the two warps in px of the photograph, where float32 is certain, over both
directions. Pseudo-random weights (`--model seeded`) have RoMa's times, but not its errors: such a network has no sense
of similarity and jumps between positions where a trained one is certain. The bundled `mini` shows the error on
photographs.
"""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from seeded_roma import (
    encoded,
    machine,
    parser_for,
    photographs,
    seeded_checkpoints,
    seeded_matcher,
    timed,
    use_threads,
    write_json,
)
from torch import Tensor

from romacli.matchers.dense import TwoPassMatcher
from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import load_matcher
from romacli.types import DenseMatch, Features, Size

DTYPES = ("float32", "bfloat16")


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--model", choices=("seeded", "mini"), default="seeded", help="mini has its own sizes")
    options = parser.parse_args()
    use_threads(options.threads)
    paths = photographs(options.folder, options.images)
    if options.model == "mini":
        matchers = [shipped(dtype) for dtype in DTYPES]
    else:
        checkpoints = seeded_checkpoints()
        sizes = {"coarse": options.coarse, "upsample": options.upsample}
        matchers = [seeded_matcher(checkpoints, **sizes, dtype=getattr(torch, dtype)) for dtype in DTYPES]
        del checkpoints
    for matcher in matchers:  # to warm up
        first = encoded(matcher, paths[0])
        matcher.match([(first, first)], [0])

    features, encode_s = encodes_in_turns(matchers, paths)
    pairs = list(itertools.combinations(range(len(paths)), 2))
    facts = {**machine(), "model": options.model, "folder": str(options.folder), "images": len(paths)}
    facts |= matchers[0].settings
    match_s: list[list[float]] = []
    distances: list[np.ndarray] = []
    for index, (a, b) in enumerate(pairs):
        both = [(rows[a], rows[b]) for rows in features]
        match_s.append(
            [timed(functools.partial(m.match, [pair], [0]))[0] for m, pair in zip(matchers, both, strict=True)]
        )
        dense = [m.warp([pair])[0] for m, pair in zip(matchers, both, strict=True)]
        distances.append(distances_px(*dense, certain=matchers[0].settings["min_certainty"]))
        values = {**facts, "pairs": len(pairs), "done": index + 1, **summary(encode_s, match_s, distances, len(pairs))}
        write_json(options.json, values)
        print(f"pair {index + 1} of {len(pairs)}: {match_s[-1][0]:.2f} s and {match_s[-1][1]:.2f} s", flush=True)
    print(table(values))


def shipped(dtype: str) -> TwoPassMatcher:
    matcher = load_matcher("mini", MatcherOptions(min_overlap=0.0, device="cpu", dtype=dtype))
    assert isinstance(matcher, TwoPassMatcher)
    return matcher


def encodes_in_turns(
    matchers: Sequence[TwoPassMatcher], paths: Sequence[Path]
) -> tuple[list[list[Features]], list[list[float]]]:
    """The features of every photograph from each matcher, and the seconds each took, decoding included."""
    features: list[list[Features]] = [[] for _ in matchers]
    seconds = []
    for path in paths:
        rows = [timed(functools.partial(encoded, matcher, path)) for matcher in matchers]
        for own, (_, found) in zip(features, rows, strict=True):
            own.append(found)
        seconds.append([taken for taken, _ in rows])
    return features, seconds


def distances_px(exact: DenseMatch, rough: DenseMatch, *, certain: float) -> np.ndarray:
    """Distances of rough from exact targets, in px of the target image, where the exact warp is certain."""
    assert exact.warp_BA is not None
    assert exact.certainty_BA is not None
    assert rough.warp_BA is not None
    there = _apart(exact.warp_AB, rough.warp_AB, exact.size_B)[exact.certainty_AB >= certain]
    back = _apart(exact.warp_BA, rough.warp_BA, exact.size_A)[exact.certainty_BA >= certain]
    return torch.cat([there, back]).numpy()


def _apart(first: Tensor, second: Tensor, size: Size) -> Tensor:
    return ((first - second) * torch.tensor(size) / 2).norm(dim=-1)


def summary(
    encode_s: Sequence[Sequence[float]],
    match_s: Sequence[Sequence[float]],
    distances: Sequence[np.ndarray],
    pairs: int,
) -> dict[str, Any]:
    """Median ratios of float32 to bfloat16, with encodes charged to the pairs in equal shares, and errors in px."""
    shares = np.sum(encode_s, axis=0) / pairs
    seconds = np.array(match_s) + shares
    all_distances = np.concatenate(distances)
    if not len(all_distances):
        raise SystemExit("float32 is nowhere certain on these photographs, so there is no error to report.")
    return {
        "seconds_a_pair": dict(zip(DTYPES, np.median(seconds, axis=0).tolist(), strict=True)),
        "times_as_fast": statistics.median((seconds[:, 0] / seconds[:, 1]).tolist()),
        "encodes_times_as_fast": statistics.median(exact / rough for exact, rough in encode_s),
        "error_px_median": float(np.median(all_distances)),
        "error_px_99": float(np.percentile(all_distances, 99)),
        "certain_pixels": len(all_distances),
    }


def table(values: dict[str, Any]) -> str:
    seconds = values["seconds_a_pair"]
    return (
        f"{values['model']}, {values['images']} photographs, {values['pairs']} pairs, {values['coarse_resolution']} / "
        f"{values['upsample_resolution']}; {values['threads']} threads of {values['processor']}; torch "
        f"{values['torch']}, commit {values['commit']}\n"
        "| float32, s a pair | bfloat16 | times as fast | encodes alone | error px, median | 99th percentile |\n"
        "|---|---|---|---|---|---|\n"
        f"| {seconds['float32']:.2f} | {seconds['bfloat16']:.2f} | {values['times_as_fast']:.2f} "
        f"| {values['encodes_times_as_fast']:.2f} | {values['error_px_median']:.3f} | {values['error_px_99']:.2f} |"
    )


if __name__ == "__main__":
    main()
