"""Random pairs from scenes of photographs with depth and pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from romacli.errors import InputError
from romacli.geometry.coordinates import from_colmap_pixels
from romacli.train.trainable import Batch, moved
from romacli.words import counted

from .posed import PosedView, TrainingView, Window, at_size, warp_from_depth

MAX_PAIRS = 100_000  # more pairs do not increase a scene's weight
SCENE_WEIGHT = 0.25  # a scene of n pairs is drawn n^0.25 times as often as one with a single pair, as for RoMa
MIRRORED_SHARE = 0.5
ATTEMPTS = 10
LEAST_VISIBLE = 0.15  # share of the known part of each window
Truth = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""A warp and where it is valid; see `warp_from_depth`."""


class Scene(Protocol):
    """Views of one place by number, and the pairs among them.

    Attributes:
        name: for messages.
        pairs: (n, 2) numbers of views.
        overlaps: (n,) share of one view that is visible in the other, in [0, 1].
    """

    @property
    def name(self) -> str: ...

    @property
    def pairs(self) -> NDArray[np.int64]: ...

    @property
    def overlaps(self) -> NDArray[np.float64]: ...

    def view(self, number: int) -> PosedView:
        """Read a view; raises InputError if a file is missing or damaged."""
        ...

    def files(self, number: int) -> tuple[Path, ...]:
        """The files read by `view`."""
        ...


@dataclass(frozen=True)
class PhotographedPairs:
    """Pairs sampled by scene first, then uniformly within it.

    Attributes:
        groups: scenes with selected pairs (n, 2).
        chances: sampling probabilities of the groups; sum to 1.
        smallest_window: minimum share of each side that a random window keeps; 1 takes whole images.
        is_partial: unknown depth says nothing about what is visible, so the warp is NaN there. Otherwise such points
            count as not visible, as for DKM and RoMa.
    """

    groups: tuple[tuple[Scene, NDArray[np.int64]], ...]
    chances: NDArray[np.float64]
    smallest_window: float = 1.0
    is_partial: bool = False

    @classmethod
    def of(
        cls,
        scenes: Sequence[Scene],
        *,
        least_overlaps: Sequence[float],
        smallest_window: float = 1.0,
        is_partial: bool = False,
    ) -> PhotographedPairs:
        """Return a mixture, in equal parts, of the pairs above each overlap bound.

        Raises:
            InputError: no pair has such an overlap, or files of the pairs are missing.
        """
        groups = [
            (scene, chosen)
            for least in least_overlaps
            for scene in scenes
            if len(chosen := scene.pairs[scene.overlaps > least])
        ]
        if not groups:
            listed = sum(len(scene.pairs) for scene in scenes)
            raise InputError(
                f"None of {counted(listed, 'pair')} in {counted(len(scenes), 'scene')} overlaps more "
                f"than {min(least_overlaps):g}. "
                "Check the lists of pairs."
            )
        for scene, chosen in groups:
            _require_files(scene, chosen)
        weights = np.array([min(len(chosen), MAX_PAIRS) ** SCENE_WEIGHT for _, chosen in groups])
        return cls(tuple(groups), weights / weights.sum(), smallest_window, is_partial)

    def begun(self, rng: np.random.Generator, size: int, count: int) -> Batch:
        """Return `count` random pairs of `size` px square; the generator determines everything."""
        views, truths = zip(*(self._pair(rng, size) for _ in range(count)), strict=True)
        warps, visible = zip(*(truth[side] for side in (0, 1) for truth in truths), strict=True)
        images = torch.cat([pair[side].image for side in (0, 1) for pair in views])
        warp = from_colmap_pixels(torch.from_numpy(np.stack(warps)), (size, size))
        batch = images, warp, torch.from_numpy(np.stack(visible))
        return mirrored(batch) if rng.random() < MIRRORED_SHARE else batch

    def finished(self, begun: Batch, device: torch.device) -> Batch:
        """Return the batch on the device."""
        return moved(begun, device)

    def _pair(
        self, rng: np.random.Generator, size: int
    ) -> tuple[tuple[TrainingView, TrainingView], tuple[Truth, Truth]]:
        """Two views, and the warps in both directions; windows of partial depth are redrawn if they share little."""
        scene, pairs = self.groups[int(rng.choice(len(self.chances), p=self.chances))]
        numbers = pairs[int(rng.integers(len(pairs)))]
        whole = [scene.view(int(number)) for number in numbers]
        for _ in range(ATTEMPTS if self.is_partial else 1):
            A, B = (at_size(view, self._window(view, rng), (size, size)) for view in whole)
            forward, backward = (warp_from_depth(*each, is_partial=self.is_partial) for each in ((A, B), (B, A)))
            if min(_share_visible(*truth) for truth in (forward, backward)) > LEAST_VISIBLE:
                break
        return (A, B), (forward, backward)

    def _window(self, view: PosedView, rng: np.random.Generator) -> Window:
        height, width = view.image.shape[:2]
        share = rng.uniform(self.smallest_window, 1)
        inner_width, inner_height = round(width * share), round(height * share)
        left, top = rng.integers(0, (width - inner_width + 1, height - inner_height + 1))
        return Window(int(left), int(top), inner_width, inner_height)


def _share_visible(warp: NDArray[np.float32], visible: NDArray[np.bool_]) -> float:
    """The share of what is known to be visible or not that is."""
    return float(visible.sum() / max(np.isfinite(warp[..., 0]).sum(), 1))


def mirrored(batch: Batch) -> Batch:
    """Flip all images of the batch left to right."""
    images, warp, visible = batch
    return images.flip(3), warp.flip(2) * warp.new_tensor([-1, 1]), visible.flip(2)


def first_line(error: Exception) -> str:
    """Return the first line of a reader's error, as part of a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _require_files(scene: Scene, pairs: NDArray[np.int64]) -> None:
    wanted = {path for number in np.unique(pairs) for path in scene.files(int(number))}
    present = {folder: set(folder.iterdir()) if folder.is_dir() else set() for folder in {p.parent for p in wanted}}
    missing = sorted(path for path in wanted if path not in present[path.parent])
    if missing:
        raise InputError(
            f"{len(missing)} of {len(wanted)} files of scene {scene.name} are missing, first {missing[0]}. "
            "Fetch them, or remove the scene from the list."
        )
