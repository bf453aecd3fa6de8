"""A long job from pairs to checked database: a strip of photographs and a matcher that knows them to about a pixel.

A command is killed in one stage after another, restarted each time, run to completion and once more.

    PYTHONPATH=.:tests python tests/benchmarks/long_job.py --images 1000 --reach 20 --folder long [--no-kills]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from support.homography import image_digest
from support.plane_matcher import NODES, environment

from romacli.pairs.listfile import write_pairs
from romacli.store.history import read_runs
from romacli.types import PairList

SIZE = (800, 600)
TILE_PX = 2048
# Deviation, on each axis, of a photograph from the position that the matcher knows.
OFF_PX = 0.7


def write_strip(folder: Path, images: int, reach: int) -> tuple[Path, dict[str, np.ndarray]]:
    """Photographs of a plane of repeated tiles, and their approximate positions on it by image digest."""
    rng = np.random.default_rng(0)
    photos = folder / "photos"
    photos.mkdir(parents=True)
    tile, plane_from_image = make_tile(rng), {}
    for k in range(images):
        angle = np.radians(rng.uniform(-4, 4))
        cos, sin = np.cos(angle), np.sin(angle)
        place = [0.7 * SIZE[0] / reach * k, rng.uniform(-20, 20)]
        matrix = np.array([[cos, -sin, place[0]], [sin, cos, place[1]], [0, 0, 1.0]])
        seen = matrix.copy()
        seen[:2, 2] += rng.normal(0, OFF_PX, 2)
        seen[0, 2] %= TILE_PX
        grey = cv2.warpPerspective(
            tile, seen, SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP
        )
        image = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
        cv2.imwrite(str(photos / f"{k:05}.png"), image)
        plane_from_image[image_digest(image)] = matrix
    names = [f"{k:05}.png" for k in range(images)]
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 : k + 1 + reach]]
    write_pairs(folder / "pairs.txt", PairList(tuple(pairs)))
    return photos, plane_from_image


def make_tile(rng: np.random.Generator) -> np.ndarray:
    """Noise of all scales above a pixel, (TILE_PX, TILE_PX) uint8."""
    tile = np.zeros((TILE_PX, TILE_PX), np.float32)
    for cells in (8, 32, 128, 512, 1024):
        noise = rng.standard_normal((cells, cells), np.float32)
        tile += 16 * cv2.resize(noise, (TILE_PX, TILE_PX), interpolation=cv2.INTER_CUBIC)
    return np.clip(tile + 128, 0, 255).astype(np.uint8)


class Watched:
    """A command with its peak memory and CPU time, read while it runs."""

    def __init__(self, words: list[str], known: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("w", encoding="utf-8") as messages:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "romacli", *words], env=known, stdout=messages, stderr=messages
            )
        self.peak_bytes, self.cpu_s = 0, 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
        while self.process.poll() is None:
            with suppress(OSError, IndexError, ValueError):
                own = Path(f"/proc/{self.process.pid}")
                fields = (own / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                self.cpu_s = (int(fields[11]) + int(fields[12])) / ticks
                self.peak_bytes = max(
                    self.peak_bytes, int((own / "statm").read_text(encoding="utf-8").split()[1]) * page
                )
            time.sleep(0.1)

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def told(self, title: str, start: float) -> dict[str, object]:
        done = re.search(r"(\d+) of \d+ pairs (?:is|are) already done", self.said())
        return {
            "run": title,
            "pairs_done_before": int(done[1]) if done else 0,
            "wall_s": round(time.monotonic() - start, 1),
            "cpu_s": round(self.cpu_s, 1),
            "peak_gb": round(self.peak_bytes / 1e9, 2),
        }


@dataclass(frozen=True)
class Kill:
    """A command and when to kill it: `seconds` after it has printed a message, or after a file has appeared."""

    stage: str
    words: Sequence[str]
    says: str = ""
    makes: str = ""
    seconds: float = 0.0

    def is_due(self, said: str, job: Path) -> bool:
        return self.says in said and (not self.makes or any(job.glob(self.makes)))


def run_killed(kill: Kill, known: dict[str, str], job: Path, log: Path) -> dict[str, object]:
    """Start a command and kill it in the stage."""
    start = time.monotonic()
    watched = Watched(list(kill.words), known, log)
    while watched.process.poll() is None and not kill.is_due(watched.said(), job):
        time.sleep(0.02)
    with suppress(subprocess.TimeoutExpired):
        watched.process.wait(kill.seconds)
    watched.process.kill()
    code = watched.process.wait()
    if code != -signal.SIGKILL:
        raise SystemExit(f"{kill.stage} ended with {code} before it was killed:\n{watched.said()}")
    return watched.told(f"killed in {kill.stage}", start)


def run_whole(title: str, words: Sequence[str], known: dict[str, str], log: Path) -> dict[str, object]:
    """Run a command to completion."""
    start = time.monotonic()
    watched = Watched(list(words), known, log)
    if watched.process.wait() != 0:
        raise SystemExit(f"{title} failed:\n{watched.said()}")
    return watched.told(title, start)


def main() -> None:
    parser = argparse.ArgumentParser(description="A long job with known warps, killed in every stage.")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--reach", type=int, default=20, help="number of following images each is paired with")
    parser.add_argument("--nodes", type=int, default=140, help="cells per side of a warp; 140 gives 196 kB a pair")
    parser.add_argument("--max-keypoints", type=int, default=8192)
    parser.add_argument("--kill-after", type=float, default=20, help="seconds into a stage")
    parser.add_argument("--no-kills", action="store_true")
    parser.add_argument("--folder", type=Path, required=True, help="working folder; must not exist")
    chosen = parser.parse_args()
    photos, matrices = write_strip(chosen.folder, chosen.images, chosen.reach)
    known = environment(chosen.folder / "env", matrices, **{NODES: chosen.nodes})
    job = chosen.folder / "job"
    match = ["match", str(photos), "-o", str(job), "--model", "plane", "--pairs", str(chosen.folder / "pairs.txt")]
    match += ["--max-keypoints", str(chosen.max_keypoints)]
    database = ["colmap-import", str(photos), "-o", str(job), "--camera-mode", "single"]
    commands = {
        "match": (
            match,
            Kill("matching", match, says="matching:", seconds=chosen.kill_after),
            Kill("aggregation", match, says="growing tracks:", seconds=chosen.kill_after),
            Kill("refinement", match, says="refining against the photographs:", seconds=chosen.kill_after),
            Kill("export", match, makes=".matches.h5.*.tmp"),
        ),
        "colmap-import": (
            database,
            Kill("import", database, makes=".database.db.*.tmp/database.db"),
            Kill("verification", database, says="verifying:", seconds=chosen.kill_after),
        ),
        "filter": (["filter", str(job)],),
    }
    for command, (words, *kills) in commands.items():
        for kill in [] if chosen.no_kills else kills:
            log = chosen.folder / f"killed-in-{kill.stage}.txt"
            print(json.dumps(run_killed(kill, known, job, log)), flush=True)
        for title in (command, f"{command} again"):
            print(json.dumps(run_whole(title, words, known, chosen.folder / f"{title}.txt")), flush=True)
    for run in read_runs(job / "runs.jsonl"):
        print(json.dumps({"stage": run.stage, "seconds": run.seconds, **run.counts}))
    for path in sorted(job.rglob("*")):
        if path.is_file():
            print(json.dumps({"file": str(path.relative_to(job)), "mb": round(path.stat().st_size / 1e6, 1)}))


if __name__ == "__main__":
    main()
