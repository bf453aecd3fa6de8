"""The embedded model's trunk as a describer: corners described by features of three strides, for the cheapest matches.

The features are those that the dense matcher compares: tokens at stride 16, which were trained to be alike nowhere but
at the same place, and the refiners' descriptors at strides 8 and 4, which tell neighbours apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from romacli.geometry.coordinates import from_colmap_pixels
from romacli.matchers.adapter import located
from romacli.matchers.dense import normalise, resize
from romacli.matchers.describers.sparse import Described, SparseMatcher, sampled
from romacli.matchers.device import resolve_device, resolve_dtype
from romacli.matchers.options import MatcherOptions
from romacli.matchers.resolution import check_multiple
from romacli.networks.mini import COARSE_STRIDE, Mini, load_mini, without_batch_norm
from romacli.networks.weights import sha256_of
from romacli.types import Keypoints, MatcherSpec, Size

LONG_SIDE = 640
# Of the tokens' 256 directions these hold 0.94 of what the projection lets through; products cost a third.
TOKEN_DIRECTIONS = 64
# Of the descriptors beside the tokens in a cosine: on photographs of a facade most of its matches are right so.
WEIGHTS = {8: 0.7, 4: 0.7}
# Corners are looked for in a photograph of this long side and lie at least so far apart there.
CORNER_SIDE, CORNER_PX = 1280, 4
_WEAKEST_CORNER = 1e-4


class MiniDescriber:
    """Describes an image by one pass through mini's trunk."""

    def __init__(self, network: Mini, size: Size | None, *, weights_sha256: str, dtype: torch.dtype) -> None:
        """size: (width, height) in px images are resized to; None keeps their aspect."""
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
        size = self._size or fitting((width, height), LONG_SIDE, COARSE_STRIDE)
        found = corners(image)
        corner_places = from_colmap_pixels(torch.from_numpy(found.xy), (width, height))
        return {
            "image": resize(image, size),
            "corners": corner_places[None],
            "corner_scores": torch.from_numpy(found.scores)[None],
        }

    def describe(self, inputs: Mapping[str, Tensor], places: Tensor | None, count: int) -> Described:
        scores = inputs["corner_scores"][0, :count]
        if places is None:
            places = inputs["corners"][0, :count]
        image = normalise(inputs["image"])
        with torch.autocast(image.device.type, self._dtype, enabled=self._dtype != torch.float32):
            pyramid = self._network.trunk(image)
            tokens = F.normalize(self._network.tokens(pyramid[COARSE_STRIDE]), dim=1)
            parts = [F.normalize(sampled(tokens, places) @ self._directions.T, dim=1)]
            for stride, weight in WEIGHTS.items():
                parts.append(weight * sampled(self._network.descriptors(pyramid, stride), places))
        return Described(places, scores, F.normalize(torch.cat(parts, dim=1), dim=1))


def corners(image: np.ndarray) -> Keypoints:
    """Corners of RGB uint8 (H, W, 3) in COLMAP pixels to a fraction of a pixel, strongest first.

    Source: Shi and Tomasi, Good Features to Track; a place is the peak of the parabola through its neighbours.
    """
    height, width = image.shape[:2]
    scale = min(1.0, CORNER_SIDE / max(height, width))
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if scale < 1:
        gray = cv2.resize(gray, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    strength = cv2.cornerMinEigenVal(cv2.GaussianBlur(gray, (0, 0), 1.0), 3, ksize=3)
    side = 2 * CORNER_PX + 1
    peaks = (strength == cv2.dilate(strength, np.ones((side, side), np.uint8))) & (strength > 0)
    peaks[[0, -1]] = peaks[:, [0, -1]] = False
    rows, columns = np.nonzero(peaks & (strength > _WEAKEST_CORNER * strength.max(initial=0)))
    order = np.argsort(-strength[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    x = columns + _offset(strength[rows, columns - 1], strength[rows, columns], strength[rows, columns + 1])
    y = rows + _offset(strength[rows - 1, columns], strength[rows, columns], strength[rows + 1, columns])
    ratio = (width / gray.shape[1], height / gray.shape[0])
    xy = (np.stack([x, y], axis=1) + 0.5) * ratio
    return Keypoints(xy.astype(np.float32), strength[rows, columns].astype(np.float32))


def _offset(before: np.ndarray, here: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where between -0.5 and 0.5 the parabola through three values has its peak; 0 where they are equal."""
    bend = np.maximum(2 * here - before - after, np.finfo(np.float32).tiny)
    return np.clip((after - before) / (2 * bend), -0.5, 0.5)


def fitting(size: Size, long_side: int, multiple: int) -> Size:
    """A (width, height) of the same aspect with that long side, both sides multiples of a number."""
    scale = long_side / max(size)
    width, height = (max(1, round(side * scale / multiple)) * multiple for side in size)
    return width, height


def build(spec: MatcherSpec, options: MatcherOptions) -> SparseMatcher:
    """The trunk with the weights in the package, or those of `options.weights`."""
    weights = located(spec, 0, options)
    return _matcher(load_mini(weights), options, spec.name, sha256_of(weights))


def build_seeded(spec: MatcherSpec, options: MatcherOptions, seed: int) -> SparseMatcher:
    """The same with torch's initial weights for a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Mini()
    return _matcher(without_batch_norm(network.eval()), options, spec.name, "")


def _matcher(network: Mini, options: MatcherOptions, name: str, sha256: str) -> SparseMatcher:
    size = options.coarse_resolution
    if size is not None:
        check_multiple(size, COARSE_STRIDE, "--coarse-resolution")
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    describer = MiniDescriber(network.to(device), size, weights_sha256=sha256, dtype=dtype)
    return SparseMatcher(name, describer, options, device=device)
