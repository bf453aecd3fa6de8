"""The matcher shared by networks that encode single images and warp pairs in two passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from romacli.geometry.coordinates import from_colmap_pixels
from romacli.geometry.scattered import spread
from romacli.matchers.compact import CompactOptions, compact_all
from romacli.matchers.matcher import StartedPair
from romacli.matchers.memory import keep_freed_memory
from romacli.networks.parts.output import NetworkMatch, PreciseMatch, Unfinished, together
from romacli.types import CompactWarp, DenseMatch, Features, PairResult, PreparedImage, Rejected, Size

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TwoPassNetwork(Protocol):
    """The interface of RoMa and similar networks: `start`, `refine` in one or two steps, `result`."""

    def encode(self, coarse: Tensor, fine: Tensor | None = None, /) -> dict[str, Tensor]: ...

    def encode_coarse(self, coarse: Tensor, /) -> dict[str, Tensor]: ...

    def descriptor(self, coarse: Tensor, /) -> Tensor: ...

    def start(self, fA: Mapping[str, Tensor], fB: Mapping[str, Tensor], /) -> Unfinished: ...

    def refine(
        self, state: Unfinished, fA: Mapping[str, Tensor], fB: Mapping[str, Tensor], /, *, down_to: int | None = None
    ) -> Unfinished: ...

    def result(self, state: Unfinished, /) -> NetworkMatch: ...


@dataclass(frozen=True)
class DenseSettings:
    """The settings that the results of a two-pass matcher depend on, all resolved; sizes are (width, height).

    weights_sha256: of the network's own checkpoint; backbone_sha256: of a second one, if needed.
    min_coarse_overlap: overlap of the decoder's warps below which a pair is not refined.
    mirrored: True if the network looks at mirrored images, too, else None: the same weights can be used without.
    """

    model: str
    weights_sha256: str
    coarse_resolution: Size
    upsample_resolution: Size | None
    min_certainty: float
    min_overlap: float
    dtype: str
    backbone_sha256: str | None = None
    min_coarse_overlap: float = 0.0
    mirrored: bool | None = None


# A GPU is filled by a few pairs; on a CPU one pair is as fast and needs the least memory.
BATCH_ON_GPU = 4
# Down to this stride the first pass has small maps: it takes more pairs to fill a GPU, and four times as many need less
# memory than refining. Derived from the maps' sizes, not timed on a GPU.
COARSE_BATCH_ON_GPU = 16
COARSE_STRIDE = 8
# In long sides; half a token of a small network. On rendered walks tighter or looser limits separated no better.
COARSE_CYCLE_ERROR = 0.03
# A warp started from points has this many cells per side; its certainty is low beyond this distance (2 is the width of
# the image) from the second nearest point.
SPREAD_SIDE, SPREAD_REACH = 32, 0.2


def resize(image: np.ndarray, size: Size) -> Tensor:
    """Stretch RGB uint8 (H, W, 3) to (1, 3, height, width) uint8 by antialiased bicubic interpolation.

    Differs from Pillow's bicubic filter, which RoMa uses, by at most two grey levels, at hard edges.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    width, height = size
    if tensor.shape[-2:] == (height, width):
        return tensor
    return F.interpolate(tensor, (height, width), mode="bicubic", antialias=True, align_corners=False)


def normalise(image: Tensor) -> Tensor:
    """Convert (B, 3, H, W) uint8 to float32, normalised by ImageNet's mean and deviation."""
    mean = torch.tensor(IMAGENET_MEAN, device=image.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=image.device).view(1, 3, 1, 1)
    return (image.float() / 255 - mean) / std


class TwoPassMatcher:
    """A dense matcher for any `TwoPassNetwork`.

    network: for inspection. device: of the network and its features.
    """

    def __init__(
        self,
        network: TwoPassNetwork,
        settings: DenseSettings,
        *,
        device: torch.device,
        autocast: bool,
        in_either_dtype: bool = False,
        resize: Callable[[np.ndarray, Size], Tensor] = resize,
        normalise: Callable[[Tensor], Tensor] = normalise,
    ) -> None:
        """Take a network on its device; on a CPU this process then reuses freed memory (`keep_freed_memory`).

        autocast: run the network under torch's autocast.
        in_either_dtype: whether another machine may get the other of `EITHER_DTYPE`.
        resize: resizes RGB uint8 (H, W, 3) to (1, 3, height, width), on the host.
        normalise: converts resized images (B, 3, H, W) to the network's input, on the device.
        """
        self.name = settings.model
        self.in_either_dtype = in_either_dtype
        self.batch_size, self.coarse_batch_size = (
            (1, 1) if device.type == "cpu" else (BATCH_ON_GPU, COARSE_BATCH_ON_GPU)
        )
        if device.type == "cpu":
            keep_freed_memory()
        self.network, self.device = network, device
        self._settings = settings
        self._autocast = autocast
        self._resize, self._normalise = resize, normalise
        self._compact = CompactOptions(min_certainty=settings.min_certainty)

    @property
    def settings(self) -> dict[str, Any]:
        sizes = {
            name: f"{value[0]}x{value[1]}" for name, value in vars(self._settings).items() if isinstance(value, tuple)
        }
        return {**vars(self._settings), **sizes, "nodes": self._compact.nodes}

    def prepare(self, image: np.ndarray) -> PreparedImage:
        """Resize RGB uint8 (H, W, 3) to the sizes of both passes, as the network requires."""
        height, width = image.shape[:2]
        tensors = {"coarse": self._resize(image, self._settings.coarse_resolution)}
        if self._settings.upsample_resolution is not None:
            tensors["fine"] = self._resize(image, self._settings.upsample_resolution)
        return PreparedImage(tensors, (width, height))

    @torch.inference_mode()
    def encode(self, images: Sequence[PreparedImage]) -> list[Features]:
        """The network's per-image features, in the working precision."""
        inputs = [self._normalise(_moved(tensor, self.device)) for tensor in _Batch(images).values()]
        with self._precision():
            tensors = self.network.encode(*inputs)
        return _unstack(tensors, images)

    @torch.inference_mode()
    def encode_coarse(self, images: Sequence[PreparedImage]) -> list[Features]:
        """The inputs of `overlap`, at a fraction of the cost of `encode`."""
        with self._precision():
            tensors = self.network.encode_coarse(self._coarse(images))
        return _unstack(tensors, images)

    @torch.inference_mode()
    def describe(self, images: Sequence[PreparedImage]) -> np.ndarray:
        """Global descriptors (N, D) float32 of unit length."""
        with self._precision():
            return self.network.descriptor(self._coarse(images)).float().cpu().numpy()

    @torch.inference_mode()
    def overlap(self, pairs: Sequence[tuple[Features, Features]]) -> list[float]:
        """The overlap of each pair by the coarse stage: the usable share of the decoder's warps, in [0, 1]."""
        with self._precision():
            return self._overlaps(self.network.start(*_Batch.of(pairs)), pairs)

    @torch.inference_mode()
    def warp(self, pairs: Sequence[tuple[Features, Features]]) -> list[DenseMatch]:
        """The warps of every pair in both directions, whatever their overlap."""
        with self._precision():
            state = self.network.start(*_Batch.of(pairs))
        return self._refined(state, pairs)

    @torch.inference_mode()
    def start(self, pairs: Sequence[tuple[Features, Features]]) -> list[StartedPair | Rejected]:
        """Run the decoder and, on pairs whose warps overlap, the refiners at coarse strides."""
        with self._precision():
            state = self.network.start(*_Batch.of(pairs))
            least = self._settings.min_coarse_overlap
            overlaps = self._overlaps(state, pairs) if least > 0 else [1.0] * len(pairs)  # not needed
            kept = [index for index, overlap in enumerate(overlaps) if overlap >= least]
            started: list[StartedPair | Rejected] = [Rejected(overlap) for overlap in overlaps]
            if kept:
                states, overlapping = state.apart(), [pairs[index] for index in kept]
                going_on = together([states[index] for index in kept])
                refined = self.network.refine(going_on, *_Batch.of(overlapping), down_to=COARSE_STRIDE)
                for index, pair, each in zip(kept, overlapping, refined.apart(), strict=True):
                    started[index] = StartedPair(pair, each)
        return started

    def finish(self, pairs: Sequence[StartedPair], seeds: Sequence[int]) -> list[PairResult]:
        """Compact, checked warps, or a rejection if too few cells are usable. No random choices are made."""
        return [
            warp if warp.overlap >= self._settings.min_overlap else Rejected(warp.overlap)
            for warp in self._finished(pairs)
        ]

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[PairResult]:
        """Run `start` and `finish` on a batch of pairs; it stays one batch if none is rejected."""
        started = self.start(pairs)
        finished = iter(self.finish([each for each in started if isinstance(each, StartedPair)], seeds))
        return [each if isinstance(each, Rejected) else next(finished) for each in started]

    @property
    def starts_from_points(self) -> bool:
        """Whether the network can start from an external warp, so that `match_from` is available."""
        return hasattr(self.network, "begin")

    def match_from(
        self, pairs: Sequence[tuple[Features, Features]], points: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> list[CompactWarp]:
        """Run the refiners on warps interpolated from point pairs, at least six per pair."""
        begin = self.network.begin  # type: ignore[attr-defined]
        started = []
        for pair, places in zip(pairs, points, strict=True):
            ends = [from_colmap_pixels(xy, each.size) for xy, each in zip(places, pair, strict=True)]
            both = [spread(here, there, SPREAD_SIDE) for here, there in (ends, ends[::-1])]
            warp = torch.from_numpy(np.stack([targets for targets, _ in both])).float().to(self.device)
            near = torch.from_numpy(np.stack([distance for _, distance in both])).float().to(self.device)
            certainty = torch.where(near < SPREAD_REACH, 3 - 4 * near / SPREAD_REACH, -4.0)
            started.append(StartedPair(pair, begin(warp, certainty)))
        return self._finished(started)

    def _finished(self, pairs: Sequence[StartedPair]) -> list[CompactWarp]:
        if not pairs:
            return []
        warps = self._refined(together([pair.state for pair in pairs]), [pair.features for pair in pairs])
        return compact_all(warps, self._compact)

    @torch.inference_mode()
    def _refined(self, state: Unfinished, pairs: Sequence[tuple[Features, Features]]) -> list[DenseMatch]:
        with self._precision():
            out = self.network.result(self.network.refine(state, *_Batch.of(pairs)))
        return [replace(match, min_certainty=self._settings.min_certainty) for match in _dense_matches(out, pairs)]

    def _coarse(self, images: Sequence[PreparedImage]) -> Tensor:
        """The network's smaller input."""
        return self._normalise(_moved(_Batch(images)["coarse"], self.device))

    def _overlaps(self, state: Unfinished, pairs: Sequence[tuple[Features, Features]]) -> list[float]:
        """The usable share of the decoder's warps of every pair."""
        out = self.network.result(state)
        options = CompactOptions(
            nodes=min(out.warp_AB.shape[1:3]),
            max_cycle_error=COARSE_CYCLE_ERROR,
            min_certainty=self._settings.min_certainty,
        )
        return [warp.overlap for warp in compact_all(_dense_matches(out, pairs), options)]

    def _precision(self) -> torch.autocast:
        dtype = getattr(torch, self._settings.dtype)
        return torch.autocast(self.device.type, dtype, enabled=self._autocast and dtype != torch.float32)


class _Batch(Mapping[str, Tensor]):
    """The tensors of several images as one batch; each is concatenated on access and not kept."""

    def __init__(self, images: Sequence[Features | PreparedImage]) -> None:
        self._rows = [each.tensors for each in images]

    @classmethod
    def of(cls, pairs: Sequence[tuple[Features, Features]]) -> tuple[_Batch, _Batch]:
        """The first and the second images of pairs."""
        return cls([a for a, _ in pairs]), cls([b for _, b in pairs])

    def __getitem__(self, name: str) -> Tensor:
        rows = [row[name] for row in self._rows]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows[0])

    def __len__(self) -> int:
        return len(self._rows[0])


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to a device; for a GPU through pinned memory, which is faster."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _unstack(tensors: Mapping[str, Tensor], images: Sequence[PreparedImage]) -> list[Features]:
    """Split a batch's features by image."""
    return [
        Features({name: tensor[i : i + 1] for name, tensor in tensors.items()}, image.size)
        for i, image in enumerate(images)
    ]


def _dense_matches(out: NetworkMatch, pairs: Sequence[tuple[Features, Features]]) -> list[DenseMatch]:
    """Split a batch's warps by pair."""
    assert out.warp_BA is not None
    assert out.certainty_BA is not None
    precision_AB, precision_BA = (out.precision_AB, out.precision_BA) if isinstance(out, PreciseMatch) else (None, None)
    return [
        DenseMatch(
            warp_AB=out.warp_AB[i].float(),
            certainty_AB=out.certainty_AB[i].float(),
            warp_BA=out.warp_BA[i].float(),
            certainty_BA=out.certainty_BA[i].float(),
            size_A=a.size,
            size_B=b.size,
            precision_AB=None if precision_AB is None else precision_AB[i],
            precision_BA=None if precision_BA is None else precision_BA[i],
        )
        for i, (a, b) in enumerate(pairs)
    ]
