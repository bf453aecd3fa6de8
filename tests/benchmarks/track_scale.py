"""The cost of tracks on long jobs: CPU time per pair and resident memory per image, records read from a journal.

The records are of a strip of overlapping photographs of a plane, with errors of a pixel and wrong regions. They are
written once into a folder, about 200 kB a pair, and reused if complete.

    python tests/benchmarks/track_scale.py --images 1000 --reach 20 --folder strip
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from romacli.geometry.warp import cell_centres, encode_targets
from romacli.keypoints.aggregate import aggregate
from romacli.keypoints.graph import PairGraph
from romacli.progress import Silent
from romacli.refine.options import RefineOptions
from romacli.refine.photograph import Photograph
from romacli.run.refine import HELD_BYTES, Refinement
from romacli.store.journal import Journal, JournalWriter
from romacli.types import CompactWarp, Pair, Size

SIZE: Size = (1600, 1200)
NODES = 140
FINGERPRINT = "strip of a plane"
NOISE_PX = 1.0
OUTLIERS = 0.1


def make_pairs(images: int, reach: int) -> list[Pair]:
    """Every image with the `reach` images after it."""
    return [(_name(i), _name(j)) for i in range(images) for j in range(i + 1, min(i + 1 + reach, images))]


def _name(k: int) -> str:
    return f"strip/{k:06}.jpg"


@dataclass(frozen=True)
class Strip:
    """Photographs that slide along a plane so that the furthest of a pair still shares a quarter of the view."""

    reach: int
    fields: np.ndarray  # (k, NODES, NODES, 2) errors in px, smooth and white
    wrong: np.ndarray  # (k, NODES, NODES) which nodes are wrong

    @classmethod
    def with_errors(cls, reach: int, *, seed: int = 0) -> Strip:
        rng = np.random.default_rng(seed)

        def smooth(knots: int, channels: int) -> np.ndarray:
            coarse = rng.standard_normal((knots, knots, channels))
            return cv2.resize(coarse, (NODES, NODES), interpolation=cv2.INTER_CUBIC)

        fields = [0.8 * smooth(30, 2) + 0.5 * rng.standard_normal((NODES, NODES, 2)) for _ in range(16)]
        heights = [smooth(8, 1) for _ in range(16)]
        wrong = [height > np.quantile(height, 1 - OUTLIERS) for height in heights]
        return cls(reach, np.array(fields, np.float32) * NOISE_PX, np.array(wrong))

    def record(self, i: int, j: int) -> CompactWarp:
        """The record of images i and j, always the same."""
        rng = np.random.default_rng([i, j])
        (target_AB, weight_AB), (target_BA, weight_BA) = self._direction(i, j, rng), self._direction(j, i, rng)
        overlap = float(np.mean([(weight > 0).mean() for weight in (weight_AB, weight_BA)]))
        return CompactWarp(target_AB, weight_AB, target_BA, weight_BA, SIZE, SIZE, overlap)

    def _direction(self, i: int, j: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        matrix = np.linalg.inv(self._plane_from_image(j)) @ self._plane_from_image(i)
        targets = cell_centres((NODES, NODES), SIZE) @ matrix[:2, :2].T + matrix[:2, 2]
        field, wrong = (grids[rng.integers(len(grids))] for grids in (self.fields, self.wrong))
        shift = tuple(rng.integers(NODES, size=2))
        targets += np.roll(field, shift, (0, 1)) + np.roll(wrong, shift, (0, 1))[..., None] * rng.uniform(-80, 80, 2)
        visible = ((targets > 0) & (targets < SIZE)).all(axis=-1)
        weights = np.where(visible, rng.integers(40, 200, visible.shape, dtype=np.uint8), 0)
        return encode_targets(targets, SIZE), weights.astype(np.uint8)

    def _plane_from_image(self, k: int) -> np.ndarray:
        rng = np.random.default_rng([k, 1])
        angle, zoom = np.radians(rng.uniform(-4, 4)), rng.uniform(0.9, 1.1)
        cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
        step = 0.75 * SIZE[0] / self.reach
        return np.array([[cos, -sin, step * k], [sin, cos, rng.uniform(-30, 30)], [0, 0, 1.0]])


def write_journal(folder: Path, pairs: Sequence[Pair], strip: Strip) -> None:
    """Append the records that are missing in the folder's journal."""
    with Journal(folder, FINGERPRINT) as held:
        missing = [pair for pair in pairs if pair not in held]
    if missing:
        with JournalWriter(folder, FINGERPRINT) as writer:
            for pair in missing:
                writer.append([(pair, strip.record(*(int(name[6:12]) for name in pair)))])


class PeakMemory:
    """Watches the resident memory of this process while entered."""

    def __enter__(self) -> PeakMemory:
        self.start_bytes = self.peak_bytes = _resident_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            self.peak_bytes = max(self.peak_bytes, _resident_bytes())


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Clock:
    """Records the CPU seconds of every stage that `aggregate` announces."""

    def __init__(self) -> None:
        self._marks: list[tuple[str, float]] = []

    def begin(self, title: str, total: int) -> None:
        self._marks.append((title, time.process_time()))

    def advance(self, count: int = 1) -> None:
        pass

    def stages(self) -> Iterator[tuple[str, float]]:
        ends = [start for _, start in self._marks[1:]] + [time.process_time()]
        for (title, start), end in zip(self._marks, ends, strict=True):
            yield title, end - start


def measure(folder: Path, pairs: Sequence[Pair], images: int) -> dict[str, float]:
    """Build tracks from a journal's records and report the cost."""
    clock, wall = Clock(), time.perf_counter()
    with Journal(folder, FINGERPRINT) as journal, PeakMemory() as memory:
        result = aggregate(pairs, journal.read, progress=clock)
        stages = dict(clock.stages())
    growth_mb = (memory.peak_bytes - memory.start_bytes) / 1e6
    return {
        "images": images,
        "pairs": len(pairs),
        "tracks": result.summary.num_tracks,
        "mean_track_length": round(result.summary.mean_track_length, 2),
        "matches_per_pair": round(result.summary.num_matches / len(pairs)),
        "cpu_ms_per_pair": round(1000 * sum(stages.values()) / len(pairs), 1),
        **{f"cpu_ms_per_pair, {title}": round(1000 * spent / len(pairs), 1) for title, spent in stages.items()},
        "wall_s": round(time.perf_counter() - wall, 1),
        "memory_growth_mb": round(growth_mb, 1),
        "memory_growth_mb_per_image": round(growth_mb / images, 3),
    }


def measure_refinement(folder: Path, pairs: Sequence[Pair], images: int) -> dict[str, float]:
    """Refine the tracks against blank photographs, which nothing agrees with, and report the memory."""
    photographs = folder / "photographs"
    for k in range(images):
        path = photographs / _name(k)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((SIZE[1], SIZE[0]), 90, np.uint8))
    with Journal(folder, FINGERPRINT) as journal:
        graph, aggregation = PairGraph(pairs, journal.read, lambda: None), aggregate(pairs, journal.read)
        with PeakMemory() as memory:
            Refinement(RefineOptions(), photographs, {}).refine(graph, aggregation, None, Silent())
    held = min(images * Photograph.BYTES_PER_PX * SIZE[0] * SIZE[1], HELD_BYTES)
    grown = memory.peak_bytes - memory.start_bytes
    return {
        "photographs_mb": round(held / 1e6),
        "memory_growth_mb": round(grown / 1e6),
        "mb_per_image_without_photographs": round((grown - held) / images / 1e6, 2),
        "bytes_per_match_without_photographs": round((grown - held) / aggregation.summary.num_matches),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure tracks on a long strip of simulated pairs.")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--reach", type=int, default=20, help="number of following images each is paired with")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the journal; 200 kB a pair")
    parser.add_argument("--refine", action="store_true", help="measure the memory of refinement, too")
    chosen = parser.parse_args()
    pairs = make_pairs(chosen.images, chosen.reach)
    write_journal(chosen.folder, pairs, Strip.with_errors(chosen.reach))
    print(json.dumps(measure(chosen.folder, pairs, chosen.images), indent=1))
    if chosen.refine:
        print(json.dumps(measure_refinement(chosen.folder, pairs, chosen.images), indent=1))


if __name__ == "__main__":
    main()
