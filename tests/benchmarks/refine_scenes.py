"""Refinement on rendered scenes with exact warps: error before and after, share refined, false convergence."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np

from romacli.refine.align import Alignment, align
from romacli.refine.options import RefineOptions
from romacli.refine.photograph import Photograph
from romacli.synthetic.pairs import SyntheticPair, photograph_twice
from romacli.synthetic.photometric import photograph
from romacli.synthetic.scenery import deep_scene, flat_scene
from romacli.synthetic.textures import Textures

OPTIONS = RefineOptions()
SIZE_PX = 640
FALSE_PX = 1.0
Rng = np.random.Generator


def noisy(image: np.ndarray, rng: Rng) -> np.ndarray:
    return np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


def compressed(image: np.ndarray, rng: Rng) -> np.ndarray:
    decoded = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


LIGHT: dict[str, Callable[[np.ndarray, Rng], np.ndarray]] = {
    "as rendered": lambda image, rng: image,
    "noise of 5 grey levels": noisy,
    "+2 stops": lambda image, rng: np.clip(image.astype(int) * 4, 0, 255).astype(np.uint8),
    "-2 stops": lambda image, rng: (image // 4).astype(np.uint8),
    "blur, sigma 2": lambda image, rng: cv2.GaussianBlur(image, (0, 0), 2),
    "JPEG, quality 30": compressed,
    "photometric": photograph,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--points", type=int, default=400, help="points tried in each scene")
    parser.add_argument("--first-seed", type=int, default=0)
    args = parser.parse_args()
    seeds = range(args.first_seed, args.first_seed + args.scenes)
    textures = Textures.load(None, procedural=10, seed=3)
    print("| scenes | second image | refined | before px | after px | rms before | rms after | false | ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, scene in (("flat", flat_scene), ("deep", deep_scene)):
        pairs = [photograph_twice(*scene(textures, np.random.default_rng(k), SIZE_PX)) for k in seeds]
        for name, light in LIGHT.items():
            start = time.process_time()
            parts = [judge(pair, light, k, args.points) for k, pair in zip(seeds, pairs, strict=True)]
            seconds = time.process_time() - start
            before, after, good = (np.concatenate(column) for column in zip(*parts, strict=True))
            rms = [np.sqrt((error**2).mean()) for error in (before, after)]
            print(
                f"| {kind} | {name} | {good.mean():.2f} | {np.median(before[good]):.2f} | "
                f"{np.median(after[good]):.3f} | {rms[0]:.2f} | {rms[1]:.2f} | "
                f"{(after[good] > FALSE_PX).mean():.4f} | {1000 * seconds / len(good):.2f} |"
            )


def judge(
    pair: SyntheticPair, light: Callable[[np.ndarray, Rng], np.ndarray], seed: int, points: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors of starting points that are off by 1 px per axis, errors after, and which were refined."""
    rng = np.random.default_rng(seed)
    y, x = rng.integers(20, SIZE_PX - 20, (2, points))
    seen = pair.visible_AB[y, x]
    x, y, warp = x[seen], y[seen], pair.warp_AB
    across, down = (warp[y, x + 4] - warp[y, x - 4]) / 8, (warp[y + 4, x] - warp[y - 4, x]) / 8
    truth = warp[y, x]
    starts = truth + rng.normal(0, 1, truth.shape)
    images = (pair.image_A, light(pair.image_B, rng))
    source, target = (Photograph.prepare(cv2.cvtColor(im, cv2.COLOR_RGB2GRAY), OPTIONS.levels) for im in images)
    places, shear = np.stack((x, y), axis=1) + 0.5, np.stack((across, down), axis=-1)
    found: Alignment = align(source, target, places, starts, shear, OPTIONS)
    return np.linalg.norm(starts - truth, axis=1), np.linalg.norm(found.xy - truth, axis=1), found.good


if __name__ == "__main__":
    main()
