"""The nouns that rooms exchange, as frozen dataclasses with shape checks.

They know no files, models or devices: arrays are numpy, network outputs are whatever tensor the matcher uses.
A/B name the two images in dense space, 0/1 in point pairs. Sizes are (width, height) in px of the original image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Size = tuple[int, int]
Pair = tuple[str, str]


def canonical(pair: Pair) -> Pair:
    """The one name of a pair and its reverse."""
    return pair if pair[0] <= pair[1] else (pair[1], pair[0])


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class LeftOut:
    """The files under a folder that are not taken for its photographs, in natural order.

    pictures: those that nothing here reads: AVIF, JPEG XL, and HEIC and raw files where their extras are not installed,
        among others.
    twins: those that `images` beside their folder has too. Data sets keep photographs in `images`, the same in other
        sizes in `images_2` or the like, and their masks in `masks`.
    others: those that are no pictures, by their extensions.
    """

    pictures: tuple[str, ...] = ()
    twins: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageList:
    """The photographs of a job: names as COLMAP has them, POSIX and relative to `root`, in natural order.

    left_out: the other files of a folder that is taken whole.
    """

    root: Path
    names: tuple[str, ...]
    left_out: LeftOut = LeftOut()

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class PairList:
    """Undirected-unique pairs of image names without self pairs."""

    pairs: tuple[Pair, ...]

    def __post_init__(self) -> None:
        seen: set[Pair] = set()
        for pair in self.pairs:
            _expect(pair[0] != pair[1], f"{pair[0]} is paired with itself")
            _expect(canonical(pair) not in seen, f"{pair[0]} {pair[1]} occurs twice")
            seen.add(canonical(pair))

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class PreparedImage:
    """One photograph as one matcher wants it, made on CPU threads. `size` is that of the original image."""

    tensors: Mapping[str, Tensor]
    size: Size


@dataclass(frozen=True)
class Features:
    """Everything a matcher computes from one image alone; opaque to the pipeline. Batch dimension 1."""

    tensors: Mapping[str, Tensor]
    size: Size

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True)
class DenseMatch:
    """The full-resolution warps of one pair, on the matcher's device.

    warp_AB: (H, W, 2) normalised xy in B for every pixel of the network's grid over A; certainty_AB: (H, W) in [0, 1].
    The _BA fields are None when the matcher ran in one direction only. min_certainty: places above it are believed.
    precision_AB: (H, W, 2, 2) inverse covariance of the target, per squared pixel of an H x W picture of B; None where
        the network does not tell.
    """

    warp_AB: Tensor
    certainty_AB: Tensor
    warp_BA: Tensor | None
    certainty_BA: Tensor | None
    size_A: Size
    size_B: Size
    min_certainty: float = 0.0
    precision_AB: Tensor | None = None
    precision_BA: Tensor | None = None


@dataclass(frozen=True)
class Rejected:
    """A pair with no evidence of overlap: recorded, not refined. `overlap` is the score that decided, in [0, 1]."""

    overlap: float


# What may have made a pair match that did not as it was, and how such a pair is called.
FOUND_BY = {"scale": "with a part enlarged", "rescue": "begun from SIFT"}


@dataclass(frozen=True)
class CompactWarp:
    """What the journal keeps of a dense pair: strided, forward/backward-checked warps of both directions.

    target_AB: (gh, gw, 2) uint16, the place in B of the centre of each of A's gh x gw cells, in steps of
        `target_step(size_B)` px from `-target_margin(size_B)` (COLMAP pixels); see geometry.warp for both.
    weight_AB: (gh, gw) uint8, 255 times the weight; 0 marks a cell without a usable target.
    overlap: mean over both directions of the share of usable cells, in [0, 1].
    quarter_turns: how often B was turned clockwise by a quarter, upright as it was, before the pair was found to match.
        The warps are those of the images as they are stored, whatever it says.
    found_by: what made a pair match that did not as it was, a key of `FOUND_BY`, or nothing.
    """

    target_AB: np.ndarray
    weight_AB: np.ndarray
    target_BA: np.ndarray
    weight_BA: np.ndarray
    size_A: Size
    size_B: Size
    overlap: float
    quarter_turns: int = 0
    found_by: str = ""

    def __post_init__(self) -> None:
        for side in ("AB", "BA"):
            target, weight = getattr(self, f"target_{side}"), getattr(self, f"weight_{side}")
            _expect(target.dtype == np.uint16, f"target_{side} is {target.dtype}, expected uint16")
            _expect(weight.dtype == np.uint8, f"weight_{side} is {weight.dtype}, expected uint8")
            _expect(weight.ndim == 2, f"weight_{side} is {weight.shape}, expected (gh, gw)")
            shape = (*weight.shape, 2)
            _expect(target.shape == shape, f"target_{side} is {target.shape}, expected {shape}")


@dataclass(frozen=True)
class Correspondences:
    """Subpixel point pairs of two images: keypoints0, keypoints1 (N, 2) float32 in COLMAP pixels, scores (N,)."""

    keypoints0: np.ndarray
    keypoints1: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.scores)
        _expect(self.scores.shape == (count,), f"scores is {self.scores.shape}, expected (N,)")
        for side in ("keypoints0", "keypoints1"):
            shape = getattr(self, side).shape
            _expect(shape == (count, 2), f"{side} is {shape}, expected ({count}, 2)")

    def __len__(self) -> int:
        return len(self.scores)


PairResult = CompactWarp | Correspondences | Rejected


@dataclass(frozen=True)
class Uncertainty:
    """How well K keypoints that were refined against the photographs are known.

    covariance: (K, 2, 2) float32 px²; quality: (K,) float32, the correlation with other views, 0 where a keypoint kept
    its place; shift: (K, 2) float32 px by which it was moved.
    """

    covariance: np.ndarray
    quality: np.ndarray
    shift: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.quality)
        _expect(self.covariance.shape == (count, 2, 2), f"covariance is {self.covariance.shape} of {count} keypoints")
        _expect(self.shift.shape == (count, 2), f"shift is {self.shift.shape} of {count} keypoints")


@dataclass(frozen=True)
class Keypoints:
    """The points of one image shared by all its pairs: xy (K, 2) float32 in COLMAP pixels, scores (K,) float32.

    uncertainty: None where they were not refined. descriptors: (K, D), of those that a matcher of keypoints describes.
    """

    xy: np.ndarray
    scores: np.ndarray
    uncertainty: Uncertainty | None = None
    descriptors: np.ndarray | None = None

    def __post_init__(self) -> None:
        _expect(self.xy.shape == (len(self.scores), 2), f"xy is {self.xy.shape}, expected ({len(self.scores)}, 2)")

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Matches:
    """Rows into two images' keypoints: indices (M, 2) int32, scores (M,) float32."""

    indices: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        shape = self.indices.shape
        _expect(shape == (len(self.scores), 2), f"indices is {shape}, expected ({len(self.scores)}, 2)")

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Step:
    """One move of a schedule: images to release, images to encode, then pairs to match, in that order."""

    release: tuple[str, ...]
    encode: tuple[str, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Schedule:
    """The whole order of work, known before the first pair runs. `peak_images` is the most held at once."""

    steps: tuple[Step, ...]
    num_encodes: int
    peak_images: int


@dataclass(frozen=True)
class Manifest:
    """What a job was made with: two jobs whose manifests differ in `settings` do not mix.

    outputs: for each file made from others, what it was derived from and what it holds, so that it is made anew only
        when that changed.
    retries: ways to try pairs again that were asked for later, with the overlap below which they try a pair.
    """

    settings: Mapping[str, Any]
    version: str
    outputs: Mapping[str, Any] = field(default_factory=dict)
    retries: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightsEntry:
    """A checkpoint that a matcher needs.

    Attributes:
        name: under which it is spoken of.
        url: where it is published; None for a file that comes with the package.
        licence: of the weights, with what limits their use.
        file_name: under which it lies in the weights folder, or in the package.
        tensor_bytes: of its tensors; the file is a little larger.
    """

    name: str
    url: str | None
    licence: str
    file_name: str
    tensor_bytes: int | None = None


@dataclass(frozen=True)
class Defaults:
    """What a dense matcher does unless told otherwise; sizes are (width, height) in px.

    coarse, upsample: of the first and the second pass; None to do without.
    coarse_step, upsample_step: what sides must be multiples of, 0 for a network without a second pass; smallest: the
        shortest side there may be.
    presets: both sizes by a word for them.
    min_certainty, min_coarse_overlap: as the options of these names.
    """

    coarse: Size
    upsample: Size | None
    coarse_step: int
    upsample_step: int = 1
    smallest: int = 1
    presets: Mapping[str, tuple[Size, Size | None]] = field(default_factory=dict)
    min_certainty: float = 0.2
    min_coarse_overlap: float = 0.0


@dataclass(frozen=True)
class MatcherSpec:
    """A row of the registry. `factory` is called with a matcher's options and its name, and imports what it needs.

    licence: of the matcher, its weights and what they were made from, with what limits their use.
    weights: the checkpoints it needs, that of the network itself first.
    seeded: builds it, with the same arguments and a seed, without a checkpoint.
    extra: the extra of this package that brings `packages`, which it imports.
    note: what commands other than `match` make of it, and what it was not tried with; hint: said when a job begins.
    has_single_pass: whether `eval synthetic` also judges the bare network, as its training does.
    """

    name: str
    factory: Callable[..., Any]
    summary: str
    licence: str
    weights: tuple[WeightsEntry, ...] = ()
    extra: str | None = None
    defaults: Defaults | None = None
    seeded: Callable[..., Any] | None = None
    note: str = ""
    hint: str = ""
    has_single_pass: bool = False
    packages: tuple[str, ...] = ()
