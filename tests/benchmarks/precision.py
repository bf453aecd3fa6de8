"""The value of RoMa v2's precision as the weight of a warp: simulated warps whose errors vary over the image.

    PYTHONPATH=tests python tests/benchmarks/precision.py

A photograph is seen by six others through homographies. Each warp has smooth noise whose standard deviation varies over
the image from 0.1 to 6 px at 320, the same in both directions or independent; the network knows it, or is wrong by a
factor that varies too. Tracks are averaged over the six predictions as in `aggregate`, with the weights of the compact
warps: from certainty alone, without precision, and with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from romacli.geometry.coordinates import from_colmap_pixels
from romacli.geometry.warp import cell_centres, warp_fields
from romacli.keypoints.consensus import combine
from romacli.matchers.compact import CompactOptions, compact
from romacli.types import CompactWarp, DenseMatch

SIDE = 320
SIZE = (1600, 1200)
VIEWS = 6
TRACKS = 4000
TOLERANCE = 4.0  # px


def smooth(generator: torch.Generator, channels: int, reach: int) -> Tensor:
    """(channels, SIDE, SIDE) noise of unit standard deviation with a correlation length of `reach` pixels."""
    coarse = torch.randn(1, channels, SIDE // reach + 3, SIDE // reach + 3, generator=generator)
    field = F.interpolate(coarse, (SIDE, SIDE), mode="bicubic", align_corners=True)[0]
    return field / field.std()


def homography(rng: np.random.Generator) -> np.ndarray:
    corners = np.array([[0, 0], [SIZE[0], 0], [SIZE[0], SIZE[1]], [0, SIZE[1]]], np.float64)
    moved = corners + rng.uniform(-0.12, 0.12, (4, 2)) * SIZE
    rows = [
        row
        for (x, y), (u, v) in zip(corners, moved, strict=True)
        for row in ([x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y])
    ]
    return np.append(np.linalg.solve(np.array(rows), moved.ravel()), 1).reshape(3, 3)


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    found = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1) @ matrix.T
    return found[..., :2] / found[..., 2:]


def direction(matrix: np.ndarray, deviation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A warp (SIDE, SIDE, 2) with an error of `deviation` network pixels, and where it stays inside."""
    exact = torch.from_numpy(from_colmap_pixels(moved(matrix, cell_centres((SIDE, SIDE), SIZE)), SIZE)).float()
    noise = smooth(generator, 2, 6).permute(1, 2, 0) * deviation[..., None]
    return exact + noise * 2 / SIDE, ((exact.abs() < 1).all(-1)).float()


def pair(matrix: np.ndarray, generator: torch.Generator, *, shared: bool, wrong_by: float) -> DenseMatch:
    """A match of the view with the photograph, whose precisions are wrong by a factor with this spread."""
    spread = torch.log(torch.tensor(60.0)) / 4
    deviations = [0.8 * (spread * smooth(generator, 1, 40)[0]).exp().clamp(0.125, 7.5) for _ in range(2)]
    if shared:
        grid = torch.from_numpy(
            from_colmap_pixels(moved(np.linalg.inv(matrix), cell_centres((SIDE, SIDE), SIZE)), SIZE)
        )
        deviations[1] = F.grid_sample(
            deviations[0][None, None], grid[None].float(), padding_mode="border", align_corners=False
        )[0, 0]
    told = [d * (np.log(wrong_by) * smooth(generator, 1, 60)[0]).exp() for d in deviations]
    precisions = [torch.eye(2) / d.square()[..., None, None] for d in told]
    forward = direction(matrix, deviations[0], generator)
    backward = direction(np.linalg.inv(matrix), deviations[1], generator)
    return DenseMatch(*forward, *backward, SIZE, SIZE, 0.2, *precisions)


def weightings(match: DenseMatch) -> Iterator[tuple[str, CompactWarp]]:
    options = CompactOptions(nodes=80)
    bare = replace(match, precision_AB=None, precision_BA=None)
    without = compact(bare, options)
    yield "certainty", replace(without, weight_AB=(without.weight_AB > 0).astype(np.uint8) * 255)
    yield "way there and back", without
    yield "with precision", compact(match, options)


def consensus_errors(*, shared: bool, wrong_by: float, seed: int) -> dict[str, float]:
    """Root mean square error in px of averaged tracks, by weighting, over tracks that all weightings have."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    truth = rng.uniform(0.2, 0.8, (TRACKS, 2)) * SIZE
    gathered: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    for _ in range(VIEWS):
        matrix = homography(rng)
        seen = moved(np.linalg.inv(matrix), truth).astype(np.float32)
        for name, record in weightings(pair(matrix, generator, shared=shared, wrong_by=wrong_by)):
            sample = warp_fields(record)[0].at(seen)
            usable = sample.weights > 0
            gathered.setdefault(name, []).append(
                (np.flatnonzero(usable), sample.targets[usable], sample.weights[usable])
            )
    errors = {}
    for name, parts in gathered.items():
        found = combine(*(np.concatenate(part) for part in zip(*parts, strict=True)), tolerance=TOLERANCE)
        errors[name] = float(np.sqrt(((found.xy - truth[found.ids]) ** 2).sum(axis=1).mean()))
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    args = parser.parse_args()
    for shared in (True, False):
        for wrong_by in (1.0, 1.5, 2.5):
            rows = [consensus_errors(shared=shared, wrong_by=wrong_by, seed=seed) for seed in range(args.seeds)]
            words = ", ".join(f"{name} {np.mean([row[name] for row in rows]):.3f}" for name in rows[0])
            print(f"{'shared' if shared else 'separate'} errors, wrong by {wrong_by}: rms px {words}", flush=True)


if __name__ == "__main__":
    main()
