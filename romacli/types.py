"""The data types that rooms exchange: frozen dataclasses with shape checks.

Independent of files, models and devices: arrays are numpy, network outputs are the matcher's own tensors.
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
    """The same name for a pair and its reverse."""
    return pair if pair[0] <= pair[1] else (pair[1], pair[0])


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class LeftOut:
    """Files in a folder that are not used as photographs, in natural order.

    pictures: those in a format that cannot be read: AVIF, JPEG XL, and HEIC and raw files where their extras are not
        installed, among others.
    twins: those that also exist in the `images` folder next to theirs. Data sets keep photographs in `images`, resized
        copies in `images_2` or similar, and masks in `masks`.
    others: those whose extensions are not of pictures.
    """

    pictures: tuple[str, ...] = ()
    twins: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageList:
    """The photographs of a job: names as in COLMAP, POSIX paths relative to `root`, in natural order.

    left_out: the other files of a folder, if a whole folder was given.
    """

    root: Path
    names: tuple[str, ...]
    left_out: LeftOut = LeftOut()

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class PairList:
    """Pairs of image names; no pair occurs twice in either order, and no image is paired with itself."""

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
    """One photograph preprocessed for one matcher, on CPU threads. `size` is that of the original image."""

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
    The _BA fields are None when the matcher ran in one direction only. min_certainty: pixels above it are used.
    precision_AB: (H, W, 2, 2) inverse covariance of the target, per squared pixel of an H x W image of B; None where
        the network does not predict it.
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
    """A pair without evidence of overlap: recorded, not refined. `overlap` is the score that decided, in [0, 1]."""

    overlap: float


# How pairs that did not match at first were made to match, and the words for it in messages.
FOUND_BY = {"scale": "with a part enlarged", "rescue": "started from sparse matches"}


@dataclass(frozen=True)
class CompactWarp:
    """What the journal keeps of a dense pair: strided, forward/backward-checked warps of both directions.

    target_AB: (gh, gw, 2) uint16, the point in B of the centre of each of A's gh x gw cells, in steps of
        `target_step(size_B)` px from `-target_margin(size_B)` (COLMAP pixels); see geometry.warp for both.
    weight_AB: (gh, gw) uint8, 255 times the weight; 0 marks a cell without a usable target.
    overlap: mean over both directions of the share of usable cells, in [0, 1].
    quarter_turns: clockwise quarter turns applied to the upright B for the pair to match. The warps refer to the
        images as stored, whatever its value.
    found_by: how a pair that did not match at first was made to match, a key of `FOUND_BY`, or "".
    precise: whether the network predicted its precision, which is then part of the weights.
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
    precise: bool = False

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
    """Subpixel point pairs between two images: keypoints0, keypoints1 (N, 2) float32 in COLMAP pixels, scores (N,)."""

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
    """The uncertainty of K keypoints refined against the photographs.

    covariance: (K, 2, 2) float32 px²; quality: (K,) float32, the correlation with other views, 0 for keypoints left in
    place; shift: (K, 2) float32, the displacement in px.
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

    uncertainty: None if not refined. descriptors: (K, D), only from matchers that describe keypoints.
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
    """One step of a schedule: images to release, images to encode, then pairs to match, in that order."""

    release: tuple[str, ...]
    encode: tuple[str, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Schedule:
    """The whole order of work, fixed before the first pair runs."""

    steps: tuple[Step, ...]
    num_encodes: int


@dataclass(frozen=True)
class Manifest:
    """The settings a job was made with: jobs whose `settings` differ cannot be mixed.

    outputs: for each derived file, what it was derived from and what it contains; it is rebuilt only if this changes.
    retries: retries added later, each with the overlap below which it retries a pair.
    """

    settings: Mapping[str, Any]
    version: str
    outputs: Mapping[str, Any] = field(default_factory=dict)
    retries: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightsEntry:
    """A checkpoint that a matcher needs.

    Attributes:
        name: its name in messages and lists.
        url: where it is published; None for a file that comes with the package.
        licence: of the weights, and usage restrictions.
        file_name: in the weights folder, or in the package.
        tensor_bytes: size of its tensors; the file is a little larger.
    """

    name: str
    url: str | None
    licence: str
    file_name: str
    tensor_bytes: int | None = None


@dataclass(frozen=True)
class Defaults:
    """Default settings of a dense matcher; sizes are (width, height) in px.

    coarse, upsample: input sizes of the first and the second pass; None for no second pass.
    coarse_step, upsample_step: sides must be multiples of these; 0 for a network without a second pass. smallest: the
        minimum side.
    presets: both sizes by name.
    min_certainty, min_coarse_overlap: as the options with these names.
    bfloat16_on_cpu: whether it was measured to be as exact in bfloat16, which `--dtype auto` then uses on CPUs that are
        faster in it.
    """

    coarse: Size
    upsample: Size | None
    coarse_step: int
    upsample_step: int = 1
    smallest: int = 1
    presets: Mapping[str, tuple[Size, Size | None]] = field(default_factory=dict)
    min_certainty: float = 0.2
    min_coarse_overlap: float = 0.0
    bfloat16_on_cpu: bool = False


@dataclass(frozen=True)
class MatcherSpec:
    """A row of the registry. `factory` takes a matcher's options and its name, and imports what it needs.

    licence: of the matcher, its weights and its sources, and usage restrictions.
    weights: the checkpoints it needs, the network's own first.
    seeded: like `factory`, but takes a seed and builds random weights instead of loading a checkpoint.
    extra: the extra of this package that installs `packages`, which the matcher imports.
    note: how commands other than `match` use it, and what is untested; hint: shown when a job begins.
    has_single_pass: whether `eval synthetic` also evaluates the bare network, as training does.
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
