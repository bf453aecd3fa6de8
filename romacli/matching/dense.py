"""The adapter shared by the networks that encode one image and warp a pair in two passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from romacli.matching.compact import CompactOptions, compact_all
from romacli.models.output import NetworkMatch
from romacli.types import CompactWarp, DenseMatch, Features, PreparedImage, Rejected, Size

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TwoPassNetwork(Protocol):
    """What RoMa and its small relative offer at network level."""

    def encode(self, coarse: Tensor, fine: Tensor | None, /) -> dict[str, Tensor]: ...

    def match(self, fA: dict[str, Tensor], fB: dict[str, Tensor], /, *, symmetric: bool = True) -> NetworkMatch: ...

    def encode_coarse(self, coarse: Tensor, /) -> dict[str, Tensor]: ...

    def match_coarse(self, fA: dict[str, Tensor], fB: dict[str, Tensor], /) -> NetworkMatch: ...


@dataclass(frozen=True)
class DenseSettings:
    """What the results of a two-pass matcher depend on, all values decided; sizes are (width, height).

    weights_sha256: of the network's own checkpoint; backbone_sha256: of a second one, where it needs that.
    """

    model: str
    weights_sha256: str
    coarse_resolution: Size
    upsample_resolution: Size | None
    min_certainty: float
    min_overlap: float
    dtype: str
    backbone_sha256: str | None = None


# A GPU is filled by a few pairs; on a CPU one is as fast and needs least memory.
BATCH_ON_GPU = 4
# In long sides, half a token of a small network. On rendered walks tighter or looser limits told no better.
COARSE_CYCLE_ERROR = 0.03


class TwoPassMatcher:
    """A dense matcher over any network of the `TwoPassNetwork` kind."""

    def __init__(
        self, network: TwoPassNetwork, settings: DenseSettings, *, device: torch.device, autocast: bool
    ) -> None:
        """Take a network on its device. `autocast`: the network leaves its working precision to torch."""
        self.name = settings.model
        self.batch_size = 1 if device.type == "cpu" else BATCH_ON_GPU
        self._network = network
        self._settings = settings
        self._device = device
        self._autocast = autocast
        self._compact = CompactOptions(min_certainty=settings.min_certainty)

    @property
    def device(self) -> torch.device:
        """Where features lie and networks run."""
        return self._device

    @property
    def network(self) -> TwoPassNetwork:
        """What encodes and matches, to be looked at."""
        return self._network

    @property
    def settings(self) -> dict[str, Any]:
        sizes = {
            name: f"{value[0]}x{value[1]}" for name, value in vars(self._settings).items() if isinstance(value, tuple)
        }
        return {**vars(self._settings), **sizes, "nodes": self._compact.nodes}

    def prepare(self, image: np.ndarray) -> PreparedImage:
        """Resize RGB uint8 (H, W, 3) to the sizes of both passes; they stay uint8 until they are on the device."""
        height, width = image.shape[:2]
        tensors = {"coarse": resize(image, self._settings.coarse_resolution)}
        if self._settings.upsample_resolution is not None:
            tensors["fine"] = resize(image, self._settings.upsample_resolution)
        return PreparedImage(tensors, (width, height))

    @torch.inference_mode()
    def encode(self, images: Sequence[PreparedImage]) -> list[Features]:
        """The network's per-image features, in the working precision."""
        stacked = _stack([image.tensors for image in images])
        inputs = {name: normalise(tensor.to(self._device)) for name, tensor in stacked.items()}
        with self._precision():
            tensors = self._network.encode(inputs["coarse"], inputs.get("fine"))
        return _unstack(tensors, images)

    @torch.inference_mode()
    def encode_coarse(self, images: Sequence[PreparedImage]) -> list[Features]:
        """What `describe` and `overlap` need of the images, at a fraction of the cost of `encode`."""
        stacked = torch.cat([image.tensors["coarse"] for image in images])
        with self._precision():
            tensors = self._network.encode_coarse(normalise(stacked.to(self._device)))
        return _unstack(tensors, images)

    def describe(self, features: Sequence[Features]) -> np.ndarray:
        """Descriptors (N, D) float32 of unit length of whole images encoded by `encode_coarse`."""
        return torch.cat([each.tensors["descriptor"] for each in features]).float().cpu().numpy()

    @torch.inference_mode()
    def overlap(self, pairs: Sequence[tuple[Features, Features]]) -> list[float]:
        """How much two images share by the coarse stage alone: the usable share of the decoder's warps, in [0, 1]."""
        with self._precision():
            out = self._network.match_coarse(
                _stack([a.tensors for a, _ in pairs]), _stack([b.tensors for _, b in pairs])
            )
        options = CompactOptions(
            nodes=min(out.warp_AB.shape[1:3]),
            max_cycle_error=COARSE_CYCLE_ERROR,
            min_certainty=self._settings.min_certainty,
        )
        return [warp.overlap for warp in compact_all(_dense_matches(out, pairs), options)]

    @torch.inference_mode()
    def warp(self, pairs: Sequence[tuple[Features, Features]]) -> list[DenseMatch]:
        """The warps of both directions of every pair."""
        features_A = _stack([a.tensors for a, _ in pairs])
        features_B = _stack([b.tensors for _, b in pairs])
        with self._precision():
            out = self._network.match(features_A, features_B, symmetric=True)
        return _dense_matches(out, pairs)

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[CompactWarp | Rejected]:
        """Compact, checked warps, or a rejection where too few cells are usable. No random choices are made."""
        return [self._judge(warp) for warp in compact_all(self.warp(pairs), self._compact)]

    def _judge(self, warp: CompactWarp) -> CompactWarp | Rejected:
        return warp if warp.overlap >= self._settings.min_overlap else Rejected(warp.overlap)

    def _precision(self) -> torch.autocast:
        dtype = getattr(torch, self._settings.dtype)
        return torch.autocast(self._device.type, dtype, enabled=self._autocast and dtype != torch.float32)


def _unstack(tensors: Mapping[str, Tensor], images: Sequence[PreparedImage]) -> list[Features]:
    """A batch's features, image by image."""
    return [
        Features({name: tensor[i : i + 1] for name, tensor in tensors.items()}, image.size)
        for i, image in enumerate(images)
    ]


def _dense_matches(out: NetworkMatch, pairs: Sequence[tuple[Features, Features]]) -> list[DenseMatch]:
    """A batch's warps, pair by pair."""
    assert out.warp_BA is not None
    assert out.certainty_BA is not None
    return [
        DenseMatch(
            warp_AB=out.warp_AB[i].float(),
            certainty_AB=out.certainty_AB[i].float(),
            warp_BA=out.warp_BA[i].float(),
            certainty_BA=out.certainty_BA[i].float(),
            size_A=a.size,
            size_B=b.size,
        )
        for i, (a, b) in enumerate(pairs)
    ]


def _stack(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Join batches of one along dimension 0, name by name."""
    if len(rows) == 1:
        return dict(rows[0])
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def resize(image: np.ndarray, size: Size) -> Tensor:
    """Stretch RGB uint8 (H, W, 3) to (1, 3, height, width) uint8 by antialiased bicubic interpolation.

    Differs from Pillow's bicubic filter, which RoMa uses, by two grey levels at most, at hard edges.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    width, height = size
    if tensor.shape[-2:] == (height, width):
        return tensor
    return F.interpolate(tensor, (height, width), mode="bicubic", antialias=True, align_corners=False)


def normalise(image: Tensor) -> Tensor:
    """Turn (B, 3, H, W) uint8 into float32 with ImageNet's mean and deviation taken out."""
    mean = torch.tensor(IMAGENET_MEAN, device=image.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=image.device).view(1, 3, 1, 1)
    return (image.float() / 255 - mean) / std
