"""Cost of long lists of pairs: CPU time, memory and bytes of each step, each in a separate process.

    PYTHONPATH=. python tests/benchmarks/scale.py --pairs 1000000 --folder scale
    PYTHONPATH=. python tests/benchmarks/scale.py --pairs 20000 --nodes 140 --folder scale --steps journal scan verify

Records have `--nodes` cells per side: 4 gives about 0.3 kB a pair, 140 a full payload of 196 kB. Every image is paired
with the 20 after it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from romacli.pairs.listfile import read_pairs, write_pairs
from romacli.run.options import Shard
from romacli.run.schedule import plan
from romacli.run.shard import order_of_work, piece
from romacli.store.hloc import MatchesFile, write_matches
from romacli.store.images import KnownImage, read_images, write_images
from romacli.store.journal import Journal, JournalWriter
from romacli.types import CompactWarp, Keypoints, Matches, Pair, PairList

REACH = 20
SIZE = (1600, 1200)


@dataclass(frozen=True)
class Size:
    """The size of a step. matches: per pair, in exports and databases."""

    folder: Path
    pairs: int
    nodes: int
    capacity: int
    matches: int

    @property
    def names(self) -> list[str]:
        return [f"strip/{k:07}.jpg" for k in range(self.pairs // REACH + REACH)]

    def list_pairs(self) -> list[Pair]:
        names = self.names
        pairs = ((names[k], names[j]) for k in range(len(names)) for j in range(k + 1, min(k + 1 + REACH, len(names))))
        return [pair for pair, _ in zip(pairs, range(self.pairs), strict=False)]

    @property
    def stamps(self) -> dict[str, tuple[int, int]]:
        return {name: (8_000_000 + k, 1_700_000_000_000_000_000 + k) for k, name in enumerate(self.names)}

    def rows(self) -> Iterator[tuple[Pair, Matches, int]]:
        indices = np.repeat(np.arange(self.matches, dtype=np.int32)[:, None], 2, axis=1)
        matches = Matches(indices, np.ones(self.matches, np.float32))
        for pair in self.list_pairs():
            yield pair, matches, 2 * self.matches


def step_lists(size: Size) -> None:
    """Write the lists of pairs and photographs, and read them."""
    write_pairs(size.folder / "pairs.txt", PairList(tuple(size.list_pairs())))
    assert len(read_pairs(size.folder / "pairs.txt", size.names).pairs) == size.pairs
    write_images(size.folder / "images.json", {name: KnownImage((stamp,), SIZE) for name, stamp in size.stamps.items()})
    read_images(size.folder / "images.json")


def step_plan(size: Size) -> None:
    """Plan the whole job."""
    plan(size.list_pairs(), size.capacity)


def step_shard(size: Size) -> None:
    """Find the pairs of a shard."""
    piece(order_of_work(size.list_pairs()), Shard(3, 8))


def step_journal(size: Size) -> None:
    """Append every record, in batches of eight."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 65536, (size.nodes, size.nodes, 2), np.uint16)
    weight = rng.integers(0, 256, (size.nodes, size.nodes), np.uint8)
    warp = CompactWarp(target, weight, target, weight, SIZE, SIZE, 0.5)
    pairs = size.list_pairs()
    shutil.rmtree(size.folder / "journal", ignore_errors=True)
    with JournalWriter(size.folder / "journal", "scale", stamps=size.stamps) as writer:
        for start in range(0, len(pairs), 8):
            writer.append([(pair, warp) for pair in pairs[start : start + 8]])


def step_scan(size: Size) -> None:
    """Open the journal, as every run does, and ask which pairs are done."""
    stamps = {name: (stamp,) for name, stamp in size.stamps.items()}
    with Journal(size.folder / "journal", "scale", stamps=stamps) as journal:
        assert all(pair in journal for pair in size.list_pairs())


def step_verify(size: Size) -> None:
    """Open the journal and verify the checksum of every payload."""
    with Journal(size.folder / "journal", "scale", verify=True) as journal:
        assert len(journal) == size.pairs


def step_export(size: Size) -> None:
    """Write `matches.h5`."""
    write_matches(size.folder / "matches.h5", size.rows(), provenance={})


def step_list(size: Size) -> None:
    """List the pairs of `matches.h5`, as the import does."""
    with MatchesFile(size.folder / "matches.h5") as file:
        assert len(file.pairs(size.names)) == size.pairs


def step_import(size: Size) -> None:
    """Write the database, without verification."""
    from romacli.colmap import verify
    from romacli.colmap.cameras import ImageInfo, assign_cameras
    from romacli.colmap.database import write_database
    from romacli.colmap.options import CameraOptions

    infos = [ImageInfo(name, SIZE) for name in size.names]
    cameras, camera_of = assign_cameras(infos, CameraOptions(mode="single"))
    points = Keypoints(
        np.random.default_rng(0).random((2 * size.matches, 2)).astype(np.float32), np.ones(2 * size.matches)
    )
    write_database(
        size.folder / "database.db",
        cameras=cameras,
        camera_of=camera_of,
        keypoints=dict.fromkeys(size.names, points.xy),
        matches=((pair, matches.indices) for pair, matches, _ in size.rows()),
        verify=verify.VerifyOptions(min_inliers=size.matches + 1, num_threads=1),
    )


STEPS: dict[str, tuple[Callable[[Size], None], tuple[str, ...]]] = {
    "lists": (step_lists, ("pairs.txt", "images.json")),
    "plan": (step_plan, ()),
    "shard": (step_shard, ()),
    "journal": (step_journal, ("journal",)),
    "scan": (step_scan, ()),
    "verify": (step_verify, ()),
    "export": (step_export, ("matches.h5",)),
    "list": (step_list, ()),
    "import": (step_import, ("database.db",)),
}


def measure(name: str, size: Size, connection: Any) -> None:
    """Run a step in this process and report its cost beyond the libraries."""
    import romacli.colmap.database  # noqa: F401

    before, cpu, wall = _peak_bytes(), time.process_time(), time.perf_counter()
    work, made = STEPS[name]
    work(size)
    connection.send(
        {
            "step": name,
            "pairs": size.pairs,
            "cpu_s": round(time.process_time() - cpu, 2),
            "us_a_pair": round((time.process_time() - cpu) / size.pairs * 1e6, 1),
            "wall_s": round(time.perf_counter() - wall, 1),
            "memory_mb": round((_peak_bytes() - before) / 1e6),
            **{file: round(_size(size.folder / file) / 1e6, 1) for file in made},
        }
    )


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the steps of a job by its number of pairs.")
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=4, help="cells per side of a warp")
    parser.add_argument("--capacity", type=int, default=100, help="images that a plan keeps in memory")
    parser.add_argument("--matches", type=int, default=20, help="matches per pair, in the export and the import")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    size = Size(chosen.folder, chosen.pairs, chosen.nodes, chosen.capacity, chosen.matches)
    for name in chosen.steps:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(name, size, theirs))
        process.start()
        process.join()
        if process.exitcode != 0:
            raise SystemExit(f"{name} failed")
        print(json.dumps(ours.recv()), flush=True)


if __name__ == "__main__":
    main()
