"""The value of RoMa v2's precision: simulated warps whose errors vary over the image.

    PYTHONPATH=tests python tests/benchmarks/precision.py weights
    PYTHONPATH=tests python tests/benchmarks/precision.py refinement

A photograph is seen by six others through homographies. Each warp has smooth noise whose standard deviation varies over
the image from 0.1 to 6 px at 320, the same in both directions or independent; the network knows it, or is wrong by a
factor that varies too. `weights` averages tracks over the six predictions as in `aggregate`, with the weights of the
compact warps: from certainty alone, without precision, and with it.

`refinement` aligns rendered photographs, 1280 px, starting from such warps: without a prior (certainty alone), with the
forward-backward error as prior, and with the precision.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from romacli.geometry.coordinates import from_colmap_pixels
from romacli.geometry.warp import cell_centres, warp_fields
from romacli.keypoints.consensus import combine
from romacli.matchers.compact import CompactOptions, compact
from romacli.refine.align import align
from romacli.refine.options import RefineOptions
from romacli.refine.photograph import Photograph
from romacli.refine.tracks import Links
from romacli.synthetic.pairs import SyntheticPair, photograph_twice
from romacli.synthetic.photometric import photograph
from romacli.synthetic.scenery import deep_scene, flat_scene
from romacli.synthetic.textures import Textures
from romacli.types import CompactWarp, DenseMatch, Size

SIDE = 320
SIZE = (1600, 1200)
VIEWS = 6
TRACKS = 4000
TOLERANCE = 4.0  # px
PLACES = 1500
REFINE = RefineOptions()
# Median standard deviation of the errors, px at `SIDE`; refinement is also measured with the smaller one.
MEDIAN, FINE_MEDIAN = 0.8, 0.25


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


def exact_warps(matrix: np.ndarray) -> list[Tensor]:
    """Both warps of a homography between pictures of `SIZE`, (SIDE, SIDE, 2)."""
    centres = cell_centres((SIDE, SIDE), SIZE)
    both = (moved(turn, centres) for turn in (matrix, np.linalg.inv(matrix)))
    return [torch.from_numpy(from_colmap_pixels(places, SIZE)).float() for places in both]


def erring(exact: Tensor, deviation: Tensor, generator: torch.Generator) -> Tensor:
    """A warp (SIDE, SIDE, 2) with an error of `deviation` network pixels."""
    noise = smooth(generator, 2, 6).permute(1, 2, 0) * deviation[..., None]
    return exact + noise * 2 / SIDE


def simulated(
    exact: list[Tensor],
    sees: list[Tensor],
    size: Size,
    generator: torch.Generator,
    *,
    shared: bool,
    wrong_by: float,
    median: float = MEDIAN,
) -> DenseMatch:
    """A match with erroneous warps, whose precisions are wrong by a factor with this spread."""
    spread = torch.log(torch.tensor(60.0)) / 4
    deviations = [median * (spread * smooth(generator, 1, 40)[0]).exp().clamp(0.125, 7.5) for _ in range(2)]
    if shared:
        deviations[1] = F.grid_sample(
            deviations[0][None, None], exact[1][None], padding_mode="border", align_corners=False
        )[0, 0]
    told = [d * (np.log(wrong_by) * smooth(generator, 1, 60)[0]).exp() for d in deviations]
    precisions = [torch.eye(2) / d.square()[..., None, None] for d in told]
    warps = [erring(*each, generator) for each in zip(exact, deviations, strict=True)]
    return DenseMatch(warps[0], sees[0], warps[1], sees[1], size, size, 0.2, *precisions)


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
        exact = exact_warps(matrix)
        sees = [(warp.abs() < 1).all(-1).float() for warp in exact]
        for name, record in weightings(simulated(exact, sees, SIZE, generator, shared=shared, wrong_by=wrong_by)):
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


def refined_errors(
    rendered: SyntheticPair, seed: int, *, shared: bool, wrong_by: float, median: float
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Errors in px after refinement, and which observations were refined, by prior."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    side = len(rendered.image_A)
    step = side // SIDE
    middle = slice(step // 2 - 1, step // 2 + 1)
    blocks = [warp.reshape(SIDE, step, SIDE, step, 2) for warp in (rendered.warp_AB, rendered.warp_BA)]
    centres = [block[:, middle, :, middle].mean(axis=(1, 3)) for block in blocks]
    exact = [torch.from_numpy(from_colmap_pixels(places, (side, side))).float() for places in centres]
    sees = [torch.from_numpy(seen[::step, ::step]).float() for seen in (rendered.visible_AB, rendered.visible_BA)]
    match = simulated(exact, sees, (side, side), generator, shared=shared, wrong_by=wrong_by, median=median)
    y, x = rng.integers(40, side - 40, (2, PLACES))
    y, x = y[rendered.visible_AB[y, x]], x[rendered.visible_AB[y, x]]
    truth, places = rendered.warp_AB[y, x].astype(np.float64), np.stack((x, y), axis=1) + 0.5
    pictures = (rendered.image_A, photograph(rendered.image_B, rng))
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]
    source, target = (Photograph.prepare(grey, REFINE.levels) for grey in greys)
    found = {}
    for name, record in weightings(match):
        ways = warp_fields(replace(record, precise=name != "certainty"))
        rows = np.flatnonzero(ways[0].at(places).weights)
        starts = ways[0].at(places[rows]).targets
        links = Links.of(rows, np.arange(len(rows)), ways, (places[rows], starts))
        aligned = align(source, target, places[rows], starts, links.affines, REFINE, links.precisions)
        found[name] = np.linalg.norm(aligned.xy - truth[rows], axis=1), aligned.good
    return found


def show_weights(seeds: range) -> None:
    for shared in (True, False):
        for wrong_by in (1.0, 1.5, 2.5):
            rows = [consensus_errors(shared=shared, wrong_by=wrong_by, seed=seed) for seed in seeds]
            words = ", ".join(f"{name} {np.mean([row[name] for row in rows]):.3f}" for name in rows[0])
            print(f"{'shared' if shared else 'separate'} errors, wrong by {wrong_by}: rms px {words}", flush=True)


def show_refinement(seeds: range) -> None:
    textures = Textures.load(None, procedural=10, seed=3)
    print("| scenes | errors of warps | precision wrong by | refined | after px | false |\n|---|---|---|---|---|---|")
    for kind, scene in (("flat", flat_scene), ("deep", deep_scene)):
        pairs = [photograph_twice(*scene(textures, np.random.default_rng(k), 4 * SIDE)) for k in seeds]
        errors = ((1.5, FINE_MEDIAN), (1.5, MEDIAN), (2.5, FINE_MEDIAN))
        for shared, (wrong_by, median) in product((True, False), errors):
            how = {"shared": shared, "wrong_by": wrong_by, "median": median}
            parts = [refined_errors(*one, **how) for one in zip(pairs, seeds, strict=True)]
            refined, after, false = [], [], []
            for name in parts[0]:
                error, good = (np.concatenate(column) for column in zip(*(part[name] for part in parts), strict=True))
                refined.append(f"{good.mean():.3f}")
                after.append(f"{np.median(error[good]):.3f}")
                false.append(f"{(error[good] > 1).mean():.4f}")
            row = (kind, f"{'shared' if shared else 'separate'}, {median * 4:.1f} px", f"{wrong_by}")
            print(f"| {' | '.join((*row, *map(', '.join, (refined, after, false))))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("weights", "refinement"))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=0)
    args = parser.parse_args()
    show = show_weights if args.part == "weights" else show_refinement
    show(range(args.first_seed, args.first_seed + args.seeds))


if __name__ == "__main__":
    main()
