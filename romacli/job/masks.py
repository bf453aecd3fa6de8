"""The masks of a job: found, checked, recorded, and reduced to the cells of its warps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from romacli.geometry.warp import masked
from romacli.images.masks import Masks, find_masks, kept_cells
from romacli.images.options import MaskOptions
from romacli.job.outputs.origins import digest, file_digest, holds, noted_path, remember
from romacli.store.layout import Layout
from romacli.store.manifest import read_manifest
from romacli.types import CompactWarp, Pair, Size
from romacli.words import counted, first_few

MASKS = "masks"


class JobMasks:
    """The masks of a job's photographs: applied to its stored warps, so that they may change without matching."""

    def __init__(self, masks: Masks) -> None:
        self._masks = masks
        self._keep_nothing: set[str] = set()
        self._ignore_nothing: set[str] = set()
        self.cells = cache(self._cells)

    def read(self, name: str) -> np.ndarray | None:
        """Which pixels of a photograph count, (H, W) bool, or None if all do."""
        kept = self._masks.read(name)
        if kept is not None and not kept.any():
            self._keep_nothing.add(name)
        elif kept is not None and kept.all():
            self._ignore_nothing.add(name)
        return kept

    def allows(self, name: str, points: np.ndarray) -> np.ndarray:
        """Which of (n, 2) points of a photograph, in COLMAP pixels, lie on pixels that count; (n,) bool."""
        kept = self.read(name)
        if kept is None:
            return np.ones(len(points), bool)
        column, row = np.clip(points.astype(np.intp), 0, np.array(kept.shape[::-1]) - 1).T
        allowed: np.ndarray = kept[row, column]
        return allowed

    def without_masked(self, pair: Pair, record: CompactWarp) -> CompactWarp:
        """The warps of a pair without masked cells."""
        grids = zip(pair, (record.weight_AB, record.weight_BA), strict=True)
        return masked(record, *(self.cells(name, weights.shape) for name, weights in grids))

    def warnings(self) -> list[str]:
        """Warnings about masks read so far that keep nothing or ignore nothing."""
        kinds = (
            (self._keep_nothing, "keep nothing", "Every pixel is black or transparent; are the masks inverted?"),
            (self._ignore_nothing, "ignore nothing", "They have no black or transparent pixels."),
        )
        return [
            f"the masks of {counted(len(names), 'photograph')} {fault}: {first_few(sorted(names), 3)}. {reason}"
            for names, fault, reason in kinds
            if names
        ]

    def _cells(self, name: str, shape: tuple[int, int]) -> np.ndarray | None:
        """The cells of a (gh, gw) grid over a photograph without black pixels, or None if all count."""
        kept = self.read(name)
        return None if kept is None else kept_cells(kept, shape)

    def stamp(self, names: Sequence[str]) -> Any:
        """What the masks of these photographs are, as JSON values."""
        masks = [[name, [file_digest(path) for path in self._masks.files.get(name, ())]] for name in sorted(names)]
        return ["samples as stored", *masks]


def note_masks(layout: Layout, options: MaskOptions) -> None:
    """Record in the job which masks it uses, if any."""
    holds = {key: None if path is None else noted_path(layout, path) for key, path in vars(options).items()}
    remember(layout, MASKS, digest(holds), holds)


def noted_masks(layout: Layout) -> MaskOptions:
    """The masks that the job was matched with."""
    noted = holds(read_manifest(layout.manifest), MASKS)
    return MaskOptions(**{key: path and layout.root / path for key, path in noted.items()})


def masks_of(options: MaskOptions, sizes: Mapping[str, Size]) -> JobMasks | None:
    """The masks of photographs of these sizes, None if there are none.

    Raises:
        InputError: a mask is missing, or of another size than its photograph.
    """
    if options == MaskOptions():
        return None
    masks = find_masks(None, list(sizes), options)
    masks.require_sizes(sizes)
    return JobMasks(masks)
