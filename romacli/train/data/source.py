"""The sources of training pairs by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from romacli.synthetic.batch import stacked
from romacli.synthetic.curriculum import Curriculum
from romacli.synthetic.pairs import sample_pair
from romacli.synthetic.pairs_on_device import PairTable, render_pairs, sample_pairs
from romacli.synthetic.rasterise import Atlas
from romacli.synthetic.school import REPEATED, school_of
from romacli.synthetic.textures import Textures
from romacli.train.options import TrainOptions
from romacli.train.trainable import Batch, moved

from . import megadepth, scannet
from .jobs import JobPairs
from .photographs import PhotographedPairs, Scene

SCENES: dict[str, tuple[Callable[[Path], Sequence[Scene]], tuple[float, ...]]] = {
    "megadepth": (megadepth.megadepth_scenes, megadepth.LEAST_OVERLAPS),
    "scannet": (scannet.scannet_scenes, scannet.LEAST_OVERLAPS),
}


class PairSource(Protocol):
    """An endless source of pairs with true warps: begun in any process, finished on the network's device."""

    def begun(self, rng: np.random.Generator, size: int, count: int) -> Any:
        """Compute the CPU part of `count` random pairs of `size` px square; `rng` determines everything."""
        ...

    def finished(self, begun: Any, device: torch.device) -> Batch:
        """Complete pairs from `begun` to a batch on the device."""
        ...


@dataclass(frozen=True)
class RenderedPairs:
    """Pairs of random scenes, rendered on the CPU. hard, changed: fractions of pairs of these schools."""

    textures: Textures
    hard: float = 0.0
    changed: float = 0.0
    curriculum: Curriculum | None = None

    def begun(self, rng: np.random.Generator, size: int, count: int) -> Batch:
        schools = [school_of(rng, self.hard, self.changed) for _ in range(count)]
        pair = partial(sample_pair, self.textures, rng, size, curriculum=self.curriculum)
        return stacked([pair(school=school) for school in schools])

    def finished(self, begun: Batch, device: torch.device) -> Batch:
        return moved(begun, device)


class DevicePairs:
    """Pairs of random scenes, generated on the CPU and rendered on the device."""

    def __init__(
        self, textures: Textures, hard: float = 0.0, changed: float = 0.0, curriculum: Curriculum | None = None
    ) -> None:
        self._textures = textures
        self._choice: dict[str, Any] = {"hard": hard, "changed": changed, "curriculum": curriculum}
        self._atlas = Atlas.of(textures, torch.device("cpu"))

    def begun(self, rng: np.random.Generator, size: int, count: int) -> PairTable:
        return sample_pairs(self._textures, self._atlas.index, rng, size, count, **self._choice)

    def finished(self, begun: PairTable, device: torch.device) -> Batch:
        if self._atlas.texels.device != device:
            self._atlas = self._atlas.to(device)
        return render_pairs(begun, self._atlas)


@dataclass(frozen=True)
class MixedPairs:
    """Rendered pairs, and photographs in place of a fraction `share` of them."""

    rendered: PairSource
    photographs: JobPairs
    share: float

    def begun(self, rng: np.random.Generator, size: int, count: int) -> tuple[Any, Batch | None]:
        few = int(rng.binomial(count, self.share))
        rendered = self.rendered.begun(rng, size, count - few) if few < count else None
        return rendered, self.photographs.begun(rng, size, few) if few else None

    def finished(self, begun: tuple[Any, Batch | None], device: torch.device) -> Batch:
        sources: tuple[PairSource, PairSource] = (self.rendered, self.photographs)
        return together(
            [source.finished(part, device) for source, part in zip(sources, begun, strict=True) if part is not None]
        )


def together(batches: Sequence[Batch]) -> Batch:
    """Return one batch of several, again with all images A in the first half."""
    halves = [[tensor.chunk(2) for tensor in batch] for batch in batches]
    images, warp, visible = (torch.cat([half[kind][side] for side in (0, 1) for half in halves]) for kind in range(3))
    return images, warp, visible


def pair_source(options: TrainOptions, device: torch.device, curriculum: Curriculum | None = None) -> PairSource:
    """Return the source that the options select; a curriculum chooses among rendered scenes.

    Raises:
        InputError: its files are missing or damaged.
    """
    if options.data_dir is None:
        repeated = REPEATED if options.hard or options.changed else 0
        textures = Textures.load(options.textures, procedural=options.procedural, seed=options.seed, repeated=repeated)
        rendered = (RenderedPairs if device.type == "cpu" else DevicePairs)(
            textures, options.hard, options.changed, curriculum
        )
        return MixedPairs(rendered, JobPairs.of(options.jobs), options.photographs) if options.jobs else rendered
    scenes, least_overlaps = SCENES[options.data]
    return PhotographedPairs.of(
        scenes(options.data_dir), least_overlaps=least_overlaps, smallest_window=options.smallest_window
    )
