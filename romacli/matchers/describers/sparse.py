"""The matcher shared by all keypoint describers: images are described once, pairs matched by their descriptors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from romacli.errors import EstimationError, ImageError
from romacli.geometry.coordinates import from_colmap_pixels, to_colmap_pixels
from romacli.geometry.turns import turn_points, turn_size
from romacli.keypoints.sift import detect_sift
from romacli.matchers.describers.corners import corners
from romacli.matchers.describers.nearest import MutualNearest
from romacli.matchers.memory import keep_freed_memory
from romacli.matchers.options import SIFT, MatcherOptions
from romacli.names import spelled
from romacli.networks.weights import sha256_of
from romacli.store.hloc import FeaturesFile
from romacli.types import Correspondences, Features, Keypoints, PreparedImage, Rejected, Size

SMALLEST_SIDE = 64
BATCH_ON_GPU = 32


@dataclass(frozen=True)
class Described:
    """Keypoints of one image: positions (N, 2) normalised, scores (N,), descriptors (N, D) of unit length.

    scores: None if the positions were given.
    """

    places: Tensor
    scores: Tensor | None
    descriptors: Tensor


class Describer(Protocol):
    """Describes keypoints of an image.

    finds: whether it detects keypoints; otherwise positions are always given.
    settings: the values its descriptors depend on.
    """

    finds: bool

    @property
    def settings(self) -> dict[str, Any]: ...

    def prepare(self, image: np.ndarray) -> dict[str, Tensor]:
        """Inputs of batch size 1 from RGB uint8 (H, W, 3); on the CPU, thread-safe."""
        ...

    def describe(self, inputs: Mapping[str, Tensor], places: Tensor | None, count: int) -> Described:
        """Describe the image at normalised points (N, 2), or at up to `count` keypoints that it detects."""
        ...


@runtime_checkable
class MapDescriber(Describer, Protocol):
    """A describer with a descriptor for every pixel of an image.

    cell_middle: the position of a cell's descriptor, in cells from its upper left corner.
    """

    cell_middle: float

    def maps(self, inputs: Mapping[str, Tensor], *, semantic: bool) -> Tensor:
        """Unit descriptors (1, C, h, w) over the image; semantic: to find the same part of another object."""
        ...


class PairStage(Protocol):
    """Matches described keypoints.

    settings: the values its matches depend on.
    """

    @property
    def settings(self) -> dict[str, Any]: ...

    def __call__(self, pairs: Sequence[tuple[Features, Features]]) -> list[tuple[Tensor, Tensor]]:
        """Matched rows (M, 2) of each pair's keypoints, one to one, and scores (M,) in [0, 1], on the CPU."""
        ...


class SparseMatcher:
    """A keypoint matcher for any describer and any pair stage."""

    def __init__(
        self,
        name: str,
        describer: Describer,
        options: MatcherOptions,
        *,
        device: torch.device,
        pair_stage: PairStage | None = None,
    ) -> None:
        self.name = name
        self.batch_size = 1 if device.type == "cpu" else BATCH_ON_GPU
        self.device = device
        if device.type == "cpu":
            keep_freed_memory()
        self._describer = describer
        self._pair_stage = pair_stage or MutualNearest(options.sparse)
        self._options = options
        self._given = _Given(Path(options.keypoints)) if options.keypoints not in (None, SIFT) else None

    @property
    def settings(self) -> dict[str, Any]:
        source = self._options.keypoints
        return {
            "model": self.name,
            **self._describer.settings,
            **self._pair_stage.settings,
            "top_k": self._options.sparse.top_k,
            "min_overlap": self._options.min_overlap,
            "keypoints": self._given.sha256 if self._given else source or "its own",
        }

    @property
    def describer(self) -> Describer:
        """The describer, for access to its maps."""
        return self._describer

    @torch.inference_mode()
    def maps(self, image: np.ndarray, *, semantic: bool) -> Tensor:
        """Unit descriptors (1, C, h, w) over RGB uint8 (H, W, 3), if the describer has them; see `MapDescriber`."""
        assert isinstance(self._describer, MapDescriber)
        inputs = self._prepared(image, None).tensors
        return self._describer.maps({name: each.to(self.device) for name, each in inputs.items()}, semantic=semantic)

    def prepare(self, image: np.ndarray) -> PreparedImage:
        """The network's inputs from RGB uint8 (H, W, 3), with SIFT keypoints if requested.

        Raises:
            ImageError: the image is too small.
        """
        return self._prepared(image, self._found(image))

    def prepare_named(self, name: str, image: np.ndarray, turns: int) -> PreparedImage:
        """The same for a named photograph, with its keypoints from a file.

        Args:
            image: upright. turns: clockwise quarter turns from the stored to the upright image.

        Raises:
            ImageError: the image is too small. StoreError: the file has no keypoints for it.
        """
        if self._given is None:
            return self._prepared(image, self._found(image), called=name)
        height, width = image.shape[:2]
        stored = turn_size((width, height), turns)
        found = self._given.read(name, stored, self.described_by)
        upright = turn_points(found.xy, stored, turns).astype(np.float32)
        return self._prepared(image, replace(found, xy=upright), called=name)

    def _found(self, image: np.ndarray) -> Keypoints | None:
        """SIFT keypoints or corners; None if the describer finds its own."""
        count = self._options.sparse.top_k
        if self._options.keypoints == SIFT:
            return detect_sift(image, count)
        return None if self._describer.finds else corners(image, count)

    @property
    def described_by(self) -> str:
        """The values that descriptors depend on, as recorded in a file of them."""
        return json.dumps({"model": self.name, **self._describer.settings}, sort_keys=True)

    def _prepared(
        self, image: np.ndarray, keypoints: Keypoints | None, *, called: str = "a photograph"
    ) -> PreparedImage:
        height, width = image.shape[:2]
        if min(height, width) < SMALLEST_SIDE:
            raise ImageError(
                f"{called} of {width}x{height} px is too small for {self.name}: each side must be at least "
                f"{SMALLEST_SIDE} px. Leave it out, or give a larger copy."
            )
        placed = {} if keypoints is None else _placed(keypoints, (width, height))
        if keypoints is not None and keypoints.descriptors is not None:
            descriptors = F.normalize(torch.from_numpy(keypoints.descriptors), dim=1)
            return PreparedImage({**placed, "descriptors": descriptors[None]}, (width, height))
        return PreparedImage({**self._describer.prepare(image), **placed}, (width, height))

    @torch.inference_mode()
    def encode(self, images: Sequence[PreparedImage]) -> list[Features]:
        """Keypoints in COLMAP pixels, their scores and descriptors, each of batch size 1.

        Raises:
            EstimationError: a descriptor is not a number.
        """
        return [self._encode(image) for image in images]

    def _encode(self, image: PreparedImage) -> Features:
        inputs = {name: tensor.to(self.device) for name, tensor in image.tensors.items()}
        places, scores = inputs.pop("places", None), inputs.pop("scores", None)
        if places is not None and "descriptors" in inputs:
            found = Described(places[0], None, inputs["descriptors"][0])
        else:
            at = None if places is None else places[0]
            found = self._describer.describe(inputs, at, self._options.sparse.top_k)
        if not torch.isfinite(found.descriptors).all():
            raise EstimationError(
                f"{self.name} returned descriptors that are not numbers. Use --dtype float32, or other weights."
            )
        keypoints = to_colmap_pixels(found.places.cpu(), image.size) if places is None else image.tensors["xy"][0]
        of_places = found.scores if found.scores is not None else scores[0] if scores is not None else None
        assert of_places is not None
        tensors = {
            "keypoints": keypoints.float(),
            "scores": of_places.float(),
            "descriptors": found.descriptors.float(),
        }
        return Features({name: tensor[None] for name, tensor in tensors.items()}, image.size)

    @torch.inference_mode()
    def match(
        self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]
    ) -> list[Correspondences | Rejected]:
        """Point pairs, or a rejection if too small a share of keypoints matches. No random choices are made."""
        found = self._pair_stage(pairs)
        return [self._judge(*pair, rows, scores) for pair, (rows, scores) in zip(pairs, found, strict=True)]

    def _judge(self, a: Features, b: Features, rows: Tensor, scores: Tensor) -> Correspondences | Rejected:
        points = [each.tensors["keypoints"][0].cpu().numpy() for each in (a, b)]
        share = len(rows) / max(1, min(map(len, points)))
        if not len(rows) or share < self._options.min_overlap:
            return Rejected(share)
        rows0, rows1 = rows.numpy().T
        return Correspondences(points[0][rows0], points[1][rows1], scores.float().numpy())


class _Given:
    """The keypoints in a file with hloc's layout, by name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with FeaturesFile(path) as file:
            self._names = file.names()
        self.sha256 = sha256_of(path)

    def read(self, name: str, size: tuple[int, int], described_by: str) -> Keypoints:
        """An image's keypoints, with their descriptors if computed with the same settings."""
        with FeaturesFile(self._path) as file:
            held = spelled([name], self._names).get(name, name)
            found = file.keypoints(held)
            if file.provenance().get("described_by") == described_by:
                found = replace(found, descriptors=file.descriptors(held))
            known = file.known_size(held) or size
        if known != size:
            raise ImageError(
                f"{name} is {size[0]}x{size[1]} px, but was {known[0]}x{known[1]} when the keypoints of {self._path} "
                "were detected. Detect keypoints on the photographs that are matched, unscaled."
            )
        return found


def _placed(keypoints: Keypoints, size: tuple[int, int]) -> dict[str, Tensor]:
    xy = torch.from_numpy(np.ascontiguousarray(keypoints.xy, np.float32))
    return {
        "xy": xy[None],
        "places": from_colmap_pixels(xy, size)[None],
        "scores": torch.from_numpy(np.ascontiguousarray(keypoints.scores, np.float32))[None],
    }


def sampled(maps: Tensor, places: Tensor) -> Tensor:
    """Sample unit descriptors (N, C) of a map (1, C, h, w) at normalised points (N, 2), bilinearly."""
    read = F.grid_sample(maps.float(), places[None, None].float(), padding_mode="border", align_corners=False)
    return F.normalize(read[0, :, 0].T, dim=1)


def fitting(size: Size, long_side: int, multiple: int) -> Size:
    """A (width, height) of the same aspect ratio with that long side, both sides rounded to multiples."""
    scale = long_side / max(size)
    width, height = (max(1, round(side * scale / multiple)) * multiple for side in size)
    return width, height
