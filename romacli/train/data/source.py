"""The sources of training pairs by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from romacli.synthetic import Textures, sample_pair
from romacli.synthetic.batch import stacked
from romacli.train.options import TrainOptions
from romacli.train.trainable import Batch

from . import megadepth, scannet
from .photographs import PhotographedPairs, Scene

SCENES: dict[str, tuple[Callable[[Path], Sequence[Scene]], tuple[float, ...]]] = {
    "megadepth": (megadepth.megadepth_scenes, megadepth.LEAST_OVERLAPS),
    "scannet": (scannet.scannet_scenes, scannet.LEAST_OVERLAPS),
}


class PairSource(Protocol):
    """Pairs without end, with their true warps."""

    def batch(self, rng: np.random.Generator, size: int, count: int) -> Batch:
        """Return `count` random pairs of `size` px square; the generator decides everything."""
        ...


@dataclass(frozen=True)
class RenderedPairs:
    """Pairs of random scenes, rendered when they are asked for."""

    textures: Textures

    def batch(self, rng: np.random.Generator, size: int, count: int) -> Batch:
        return stacked([sample_pair(self.textures, rng, size) for _ in range(count)])


def pair_source(options: TrainOptions) -> PairSource:
    """Return the source a run asks for.

    Raises:
        InputError: its files are missing or damaged.
    """
    if options.data_dir is None:
        return RenderedPairs(Textures.load(options.textures, procedural=options.procedural, seed=options.seed))
    scenes, least_overlaps = SCENES[options.data]
    return PhotographedPairs.of(
        scenes(options.data_dir), least_overlaps=least_overlaps, smallest_window=options.smallest_window
    )
