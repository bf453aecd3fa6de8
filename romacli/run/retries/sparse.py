"""Point pairs of two photographs, from SIFT or from hloc files, to start a dense match."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch

from romacli.errors import EstimationError, InputError
from romacli.geometry.turns import turn_points, turn_size
from romacli.keypoints.sift import describe_sift
from romacli.matchers.describers.nearest import mutual_nearest
from romacli.names import spelled
from romacli.run.retries.recent import RecentFeatures
from romacli.store.hloc import FeaturesFile, MatchesFile
from romacli.types import Features, Pair, Size

# SIFT's image size (long side, px) and number of keypoints: about a second per photograph on a CPU.
_LONG_SIDE, _KEYPOINTS = 1600, 4000
_RATIO = 0.9

PointPairs = tuple[np.ndarray, np.ndarray]
"""Matched points (N, 2), (N, 2) in px of the upright photographs, with (0, 0) the top left corner."""


class SparseMatches(Protocol):
    """A source of point pairs."""

    def find(self, pair: Pair, sizes: tuple[Size, Size]) -> PointPairs:
        """The point pairs of two upright photographs of these sizes; empty if there are none."""
        ...

    def clear(self) -> None:
        """Free memory."""
        ...


class SiftMatches:
    """SIFT's mutual nearest neighbours."""

    def __init__(self, read: Callable[[str], np.ndarray], *, capacity_bytes: int) -> None:
        """read: returns a photograph upright, RGB uint8 (H, W, 3). capacity_bytes: memory for keypoints."""
        self._read = read
        self._keypoints = RecentFeatures(self._describe, capacity_bytes)

    def find(self, pair: Pair, sizes: tuple[Size, Size] | None = None) -> PointPairs:
        first, second = (self._keypoints[name][0].tensors for name in pair)
        rows = mutual_nearest([first["descriptors"]], [second["descriptors"]], ratio=_RATIO)[0][0]
        return first["xy"][rows[:, 0]].numpy(), second["xy"][rows[:, 1]].numpy()

    def clear(self) -> None:
        self._keypoints.clear()

    def _describe(self, name: str) -> Sequence[Features]:
        """SIFT keypoints in px of the photograph, whatever size they are detected at; none if it fails."""
        image = self._read(name)
        height, width = image.shape[:2]
        scale = min(1.0, _LONG_SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
        try:
            xy, descriptors = describe_sift(small, _KEYPOINTS)
        except EstimationError:
            xy, descriptors = np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
        xy = (xy * np.array([width / size[0], height / size[1]])).astype(np.float32)
        return [Features({"xy": torch.from_numpy(xy), "descriptors": torch.from_numpy(descriptors)}, (width, height))]


class FileMatches:
    """The matches in `features.h5` and `matches.h5` of a folder, as hloc and romacli write them.

    The files are opened for each pair, which is cheap compared to matching, so that no process keeps them open.
    """

    def __init__(self, folder: Path, turns: Mapping[str, int]) -> None:
        """turns: clockwise quarter turns from each stored photograph to its upright version."""
        self._features, self._matches = folder / "features.h5", folder / "matches.h5"
        self._turns = turns

    def check(self, names: Sequence[str]) -> None:
        """Check that both files can be read and have keypoints of some of these images.

        Raises:
            InputError: a file does not exist, or has none of them.
            StoreError: a file is damaged, or not of hloc's format.
        """
        with MatchesFile(self._matches):
            if names and not spelled(names, self._names):
                raise InputError(
                    f"{self._features} has no keypoints of these photographs. Its names must be those of the "
                    "photographs, relative to their folder."
                )

    def find(self, pair: Pair, sizes: tuple[Size, Size]) -> PointPairs:
        """See SparseMatches.find.

        Raises:
            InputError: a photograph had another size when its keypoints were made.
            StoreError: a file is damaged.
        """
        with FeaturesFile(self._features) as features, MatchesFile(self._matches) as matches:
            known = spelled(pair, self._names)
            if len(known) < 2 or (known[pair[0]], known[pair[1]]) not in matches:
                return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
            rows = matches.matches(known[pair[0]], known[pair[1]]).indices
            ends = [
                self._upright(features, known[name], name, size)[rows[:, side]]
                for side, (name, size) in enumerate(zip(pair, sizes, strict=True))
            ]
        return ends[0], ends[1]

    def clear(self) -> None:
        """Does nothing: no memory is kept."""

    @cached_property
    def _names(self) -> list[str]:
        with FeaturesFile(self._features) as file:
            return file.names()

    def _upright(self, features: FeaturesFile, known: str, name: str, size: Size) -> np.ndarray:
        turns = self._turns.get(name, 0)
        stored = turn_size(size, -turns)
        if (features.known_size(known) or stored) != stored:
            raise InputError(
                f"{name} is {stored[0]}x{stored[1]} px, but another size in {self._features}. Give --rescue-from a "
                "folder made from the same photographs."
            )
        return turn_points(features.keypoints(known).xy, stored, turns)
