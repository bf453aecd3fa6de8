"""Refine keypoints against those photographs that did not change since they were matched."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from romacli.errors import ImageError
from romacli.images.decode import read_image
from romacli.keypoints.graph import PairGraph
from romacli.keypoints.result import Aggregation
from romacli.progress import Progress
from romacli.refine.options import RefineOptions
from romacli.refine.photograph import LONGEST_SIDE, Photograph, levels_of
from romacli.refine.tracks import Edge, Known, Links, RefinedTracks, refine_tracks
from romacli.run.schedule import plan
from romacli.store.images import KnownImage, unusable
from romacli.types import Keypoints, Uncertainty
from romacli.words import counted, first_few

# Memory for cached photographs, at least two. Decoding one briefly takes its size again.
HELD_BYTES = 2 << 30
_MOST_DECODERS = 4
# Which pixels of a photograph count, (H, W) bool, or None if all do.
Kept = Callable[[str], np.ndarray | None]


@dataclass(frozen=True)
class Refined:
    """The result of refinement.

    keypoints: of every image of the graph, with their precision, in their old order; share: of the matched keypoints
    that were refined; median_shift: in px, of those; both None without any photograph. warnings: sentences on
    photographs that could not be used.
    """

    keypoints: Mapping[str, Keypoints]
    share: float | None
    median_shift: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Refinement:
    """What keypoints are refined against.

    images: the folder of photographs, None if unknown. known: the photographs as they were matched.
    """

    options: RefineOptions
    images: Path | None
    known: Mapping[str, KnownImage]

    def of_keypoints(self, *, are_external: bool) -> Refinement | None:
        """The same for keypoints that are made or given, None where they are not to be refined.

        Given ones are refined only where it was asked, and do not move to better places.
        """
        is_wanted = not are_external if self.options.refine is None else self.options.refine
        if not is_wanted:
            return None
        return replace(self, options=replace(self.options, seed_radius=0)) if are_external else self

    def stamp(self, names: Sequence[str]) -> Any:
        """What refined keypoints depend on besides their warps, as JSON values."""
        how = {key: value for key, value in vars(self.options).items() if key != "refine"}
        return ["refined", how, sorted(unusable(self.images, self.known, names).items())]

    def refine(
        self,
        graph: PairGraph,
        aggregation: Aggregation,
        kept: Kept | None,
        progress: Progress,
        held: Set[str] = frozenset(),
    ) -> Refined:
        """Refine the keypoints of an aggregation, but for those of `held` images, to which the others are aligned.

        Photographs are decoded once where memory holds all, else about once a round.
        """
        shelf = _Shelf(self, graph, kept, progress)
        if shelf.is_empty or held >= set(graph.names):
            return Refined(aggregation.keypoints, None, None, shelf.warnings())
        before = [aggregation.keypoints[name] for name in graph.names]
        matched = [np.zeros(len(keypoints), bool) for keypoints in before]
        result = refine_tracks(
            [keypoints.xy for keypoints in before],
            _links(graph, aggregation, progress, held, matched),
            shelf.read,
            self.options,
            allows=lambda image, xy: _inside(graph, image, xy) & graph.allows(image, xy),
            threads=os.cpu_count() or 1,
            batches=shelf.batches,
            fixed={image: _known(before[image]) for image, name in enumerate(graph.names) if name in held},
        )
        refined = _precise(before, result)
        keypoints = dict(zip(graph.names, refined, strict=True))
        new = [image for image, name in enumerate(graph.names) if name not in held]
        known = [refined[image].uncertainty for image in new]
        shifts = [np.linalg.norm(one.shift[one.quality > 0], axis=1) for one in known if one]
        moved = np.concatenate([np.zeros(0), *shifts])
        return Refined(
            {**keypoints, **{name: one for name, one in aggregation.keypoints.items() if name in held}},
            len(moved) / max(sum(matched[image].sum() for image in new), 1),
            float(np.median(moved)) if len(moved) else 0.0,
            shelf.warnings(),
        )


def _known(keypoints: Keypoints) -> Known | None:
    known = keypoints.uncertainty
    return None if known is None else (known.covariance, known.quality)


def _links(
    graph: PairGraph, aggregation: Aggregation, progress: Progress, held: Collection[str], matched: Sequence[np.ndarray]
) -> Iterator[tuple[Edge, Links]]:
    """The links of pairs, not both `held`; marks what they link in `matched`, (n,) bool per image."""
    progress.begin("reading warps", len(graph.edges))
    for i, j in graph.edges:
        progress.advance()
        if {graph.names[i], graph.names[j]} <= set(held):
            continue
        first, second = aggregation.matches_of(graph.pair_of((i, j))).indices.T
        xy = [aggregation.keypoints[graph.names[k]].xy[rows] for k, rows in ((i, first), (j, second))]
        links = Links.of(first, second, (graph.warp(i, j), graph.warp(j, i)), (xy[0], xy[1]))
        matched[i][links.first] = matched[j][links.second] = True
        yield (i, j), links


def _inside(graph: PairGraph, image: int, xy: np.ndarray) -> np.ndarray:
    return np.asarray(((xy >= 0) & (xy <= graph.sizes[image])).all(axis=1))


def _precise(before: Sequence[Keypoints], result: RefinedTracks) -> list[Keypoints]:
    precise = []
    for old, new, *known in zip(before, result.xy, result.covariance, result.quality, strict=True):
        covariance, quality = known
        xy = new.astype(old.xy.dtype)
        uncertainty = Uncertainty(covariance, quality, (xy - old.xy).astype(np.float32))
        precise.append(replace(old, xy=xy, uncertainty=uncertainty))
    return precise


class _Shelf:
    """A cache of photographs, decoded when a group of pairs needs them and released as memory requires."""

    def __init__(self, refinement: Refinement, graph: PairGraph, kept: Kept | None, progress: Progress) -> None:
        self._refinement, self._graph, self._kept, self._progress = refinement, graph, kept, progress
        self._unusable = unusable(refinement.images, refinement.known, graph.names)
        self._held: dict[int, Photograph] = {}

    @property
    def is_empty(self) -> bool:
        return len(self._unusable) == len(self._graph.names)

    def read(self, image: int) -> Photograph | None:
        return self._held.get(image)

    def batches(self, edges: Sequence[Edge]) -> Iterator[Sequence[Edge]]:
        """All pairs, in an order that avoids decoding photographs repeatedly."""
        self._progress.begin("refining against the photographs", len(edges))
        numbers = {name: image for image, name in enumerate(self._graph.names)}
        largest = max((width * height for width, height in self._graph.sizes), default=1)
        capacity = max(2, HELD_BYTES // (Photograph.BYTES_PER_PX * largest))
        with ThreadPoolExecutor(min(_MOST_DECODERS, os.cpu_count() or 1)) as pool:
            for step in plan([self._graph.pair_of(edge) for edge in edges], capacity).steps:
                # Where all fit, they stay for the rounds to come.
                for name in step.release if len(numbers) > capacity else ():
                    self._held.pop(numbers[name], None)
                loaded = [numbers[name] for name in step.encode if numbers[name] not in self._held]
                for image, photograph in zip(loaded, pool.map(self._load, loaded), strict=True):
                    if photograph is not None:
                        self._held[image] = photograph
                yield [(numbers[first], numbers[second]) for first, second in step.pairs]
                self._progress.advance(len(step.pairs))

    def _load(self, image: int) -> Photograph | None:
        name, size = self._graph.names[image], self._graph.sizes[image]
        if name in self._unusable:
            return None
        assert self._refinement.images is not None
        try:
            pixels = read_image(self._refinement.images / name)
        except ImageError:
            self._unusable[name] = "unreadable"
            return None
        if (pixels.shape[1], pixels.shape[0]) != size:
            self._unusable[name] = "of another size"
            return None
        if max(size) > LONGEST_SIDE:
            self._unusable[name] = "too long"
            return None
        kept = self._kept(name) if self._kept else None
        return Photograph.prepare(_grey(pixels), max(self._refinement.options.levels, levels_of(size)), kept)

    def warnings(self) -> tuple[str, ...]:
        """Warnings about photographs that could not be used."""
        if not self._unusable:
            return ()
        if self.is_empty and set(self._unusable.values()) == {"gone"}:
            folder = self._refinement.images
            where = f"are not in {folder}" if folder else "are in an unknown folder"
            return (
                f"keypoints are not refined, as the photographs {where}. Give their folder with --images, or add "
                "--no-refine.",
            )
        names = sorted(self._unusable)
        told = [f"{name} ({self._unusable[name]})" for name in names]
        return (
            f"{counted(len(names), 'photograph')} cannot be used, so keypoints there are not refined: "
            f"{first_few(told)}",
        )


def _grey(image: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
