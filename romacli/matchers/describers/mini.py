"""The embedded model's trunk as a describer: corners described by features at three strides, for the cheapest matches.

The features are those that the dense matcher compares: tokens at stride 16, trained to be similar only at matching
positions, and the refiners' descriptors at strides 8 and 4, which distinguish neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from romacli.matchers.adapter import located
from romacli.matchers.dense import normalise, resize
from romacli.matchers.describers.sparse import Described, SparseMatcher, fitting, sampled
from romacli.matchers.device import resolve_device, resolve_dtype
from romacli.matchers.options import MatcherOptions
from romacli.matchers.resolution import check_multiple
from romacli.networks.mini import COARSE_STRIDE, Mini, load_mini
from romacli.networks.parts.folding import fold_batchnorm
from romacli.networks.parts.maps import resized
from romacli.networks.weights import sha256_of
from romacli.types import MatcherSpec, Size

LONG_SIDE = 640
# These of the tokens' 256 directions contain 0.94 of the projection's energy; products cost a third.
TOKEN_DIRECTIONS = 64
# Of the descriptors relative to the tokens in a cosine: with these most matches on photographs of a facade are right.
WEIGHTS = {8: 0.7, 4: 0.7}


class MiniDescriber:
    """Describes an image in one pass through mini's trunk."""

    finds = False
    cell_middle = 0.5

    def __init__(self, network: Mini, size: Size | None, *, weights_sha256: str, dtype: torch.dtype) -> None:
        """size: (width, height) in px that images are resized to; None keeps their aspect ratio."""
        self._network = network
        self._size = size
        self._sha256 = weights_sha256
        self._dtype = dtype
        directions = torch.linalg.svd(network.tokens.weight[:, :, 0, 0].detach().float())[0]
        self._directions = directions[:, :TOKEN_DIRECTIONS].T.contiguous()

    @property
    def settings(self) -> dict[str, Any]:
        resolution = f"{self._size[0]}x{self._size[1]}" if self._size else f"long side {LONG_SIDE}"
        dtype = str(self._dtype).removeprefix("torch.")
        return {"weights_sha256": self._sha256, "coarse_resolution": resolution, "dtype": dtype}

    def prepare(self, image: np.ndarray) -> dict[str, Tensor]:
        height, width = image.shape[:2]
        return {"image": resize(image, self._size or fitting((width, height), LONG_SIDE, COARSE_STRIDE))}

    def describe(self, inputs: Mapping[str, Tensor], places: Tensor | None, count: int) -> Described:
        assert places is not None
        parts = [F.normalize(sampled(part, places), dim=1) for part in self._parts(inputs)]
        return Described(places, None, F.normalize(weighted(parts), dim=1))

    def maps(self, inputs: Mapping[str, Tensor], *, semantic: bool) -> Tensor:
        parts = self._parts(inputs)
        finest = parts[-1].shape[-2:]
        return F.normalize(weighted([F.normalize(resized(part, finest), dim=1) for part in parts]), dim=1)

    def _parts(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Maps of the tokens, then of the descriptors from coarse to fine."""
        image = normalise(inputs["image"])
        with torch.autocast(image.device.type, self._dtype, enabled=self._dtype != torch.float32):
            pyramid = self._network.pyramid(image)
            tokens = F.normalize(self._network.compared(pyramid), dim=1)
            found = [torch.einsum("kc,bchw->bkhw", self._directions.to(tokens), tokens)]
            found += [self._network.descriptors(pyramid, stride) for stride in WEIGHTS]
        return [part.float() for part in found]


def weighted(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate tokens and weighted descriptors along dimension 1."""
    return torch.cat([weight * part for weight, part in zip((1.0, *WEIGHTS.values()), parts, strict=True)], dim=1)


def build(spec: MatcherSpec, options: MatcherOptions) -> SparseMatcher:
    """Build the describer with the included weights, or with `options.weights`."""
    weights = located(spec, 0, options)
    return _matcher(load_mini(weights), options, spec.name, sha256_of(weights))


def build_seeded(spec: MatcherSpec, options: MatcherOptions, seed: int) -> SparseMatcher:
    """The same with torch's initial weights from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Mini().eval()
    fold_batchnorm(network)
    return _matcher(network, options, spec.name, "")


def _matcher(network: Mini, options: MatcherOptions, name: str, sha256: str) -> SparseMatcher:
    size = options.coarse_resolution
    check_multiple(size, COARSE_STRIDE, "--coarse-resolution")
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    describer = MiniDescriber(network.to(device), size, weights_sha256=sha256, dtype=dtype)
    return SparseMatcher(name, describer, options, device=device)
