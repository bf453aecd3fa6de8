"""Export a matcher as two ONNX graphs, one for images and one for pairs, and check them with onnxruntime."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from romacli.errors import StoreError, UsageError
from romacli.matchers.dense import TwoPassMatcher, normalise
from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import load_matcher
from romacli.networks.mini import Mini
from romacli.types import Size

OPSET = 17
PACKAGES = ("onnx", "onnxruntime")
# In the finer image; graphs whose warps differ by more are rejected.
_MOST_DIFFERENT_PX = 1e-3
_OUTPUTS = ("warp_AB", "certainty_AB", "warp_BA", "certainty_BA")


@dataclass(frozen=True)
class Exported:
    """The written files. sizes: (width, height) of both inputs; largest_error_px: over certain pixels, in the finer."""

    encode: Path
    match: Path
    sizes: tuple[Size, Size]
    largest_error_px: float


def export(name: str, path: Path) -> Exported:
    """Write a matcher's graphs as PATH-encode.onnx and PATH-match.onnx, and compare their outputs with the network's.

    encode takes RGB in [0, 1], `coarse` and `fine` (1, 3, height, width), and returns the features of an image; match
    takes those of two images, their names ending in _A and _B, and returns the fields of `NetworkMatch`.

    Raises:
        UsageError: the matcher cannot be exported, or a package or the folder is missing.
        StoreError: the files cannot be written, or do not reproduce the network's warps.
    """
    matcher = load_matcher(name, MatcherOptions(device="cpu"))
    if not isinstance(matcher, TwoPassMatcher) or not isinstance(matcher.network, Mini):
        raise UsageError(f"{name} has no ONNX export; mini has one.")
    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        raise UsageError(f"--onnx needs {' and '.join(missing)}. Run: pip install 'romacli[onnx]'")
    if not path.parent.is_dir():
        raise UsageError(f"--onnx {path}: there is no folder {path.parent}. Create it, or give another path.")
    stem = path.with_suffix("") if path.suffix == ".onnx" else path
    encode, match = (stem.with_name(f"{stem.name}-{stage}.onnx") for stage in ("encode", "match"))
    photographs = _two_views()
    first, second = (_inputs(matcher, photograph) for photograph in photographs)
    sizes = tuple((each.shape[3], each.shape[2]) for each in first)
    encoder = _Encode(matcher.network).eval()
    with torch.inference_mode(False), torch.no_grad():
        features = [encoder(*inputs) for inputs in (first, second)]
        pair = _Match(matcher.network, encoder.names).eval()
        expected = pair(*features[0], *features[1])
        names = [f"{feature}_{side}" for side in "AB" for feature in encoder.names]
        _write(encoder, first, encode, ("coarse", "fine"), encoder.names)
        _write(pair, (*features[0], *features[1]), match, names, _OUTPUTS)
    found = _run(encode, match, first, second)
    error = largest_error_px(expected, found, sizes[1])
    if not error <= _MOST_DIFFERENT_PX:
        raise StoreError(f"{match} gives warps that differ from {name}'s by {error:.2g} px; do not use it.")
    return Exported(encode, match, (sizes[0], sizes[1]), error)


class _Encode(nn.Module):
    """The encoder from RGB in [0, 1] to features in the order of `names`."""

    def __init__(self, network: Mini) -> None:
        super().__init__()
        self.network = network
        self.names: list[str] = []

    def forward(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, ...]:
        encoded = self.network.encode(normalise(coarse * 255), normalise(fine * 255))
        self.names = sorted(encoded)
        return tuple(encoded[name] for name in self.names)


class _Match(nn.Module):
    """Matching of two images' features, given in the order of `names`."""

    def __init__(self, network: Mini, names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.names = list(names)

    def forward(self, *features: Tensor) -> tuple[Tensor | None, ...]:
        half = len(self.names)
        first, second = (dict(zip(self.names, part, strict=True)) for part in (features[:half], features[half:]))
        found = self.network.match(first, second)
        return tuple(getattr(found, name) for name in _OUTPUTS)


def _two_views() -> tuple[np.ndarray, np.ndarray]:
    """Two images of one textured surface, RGB uint8 (480, 640, 3), the second shifted."""
    rng = np.random.default_rng(0)
    levels = sum(np.kron(rng.random((608 // cell, 768 // cell)), np.ones((cell, cell))) for cell in (4, 8, 16, 32))
    rough = np.repeat((np.asarray(levels) * 63).astype(np.uint8)[..., None], 3, axis=2)
    return rough[64:544, 64:704], rough[72:552, 76:716]


def _inputs(matcher: TwoPassMatcher, photograph: np.ndarray) -> tuple[Tensor, ...]:
    return tuple(tensor.float() / 255 for tensor in matcher.prepare(photograph).tensors.values())


def _write(
    module: nn.Module, inputs: Sequence[Tensor], path: Path, names: Sequence[str], outputs: Sequence[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fixed sizes are intended, and the exporter is chosen on purpose
        try:
            torch.onnx.export(
                module,
                tuple(inputs),
                str(path),
                input_names=list(names),
                output_names=list(outputs),
                opset_version=OPSET,
                dynamo=False,
            )
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror or error}.") from error


def _run(encode: Path, match: Path, *photographs: Sequence[Tensor]) -> dict[str, Any]:
    """Run the graphs on two photographs with onnxruntime on the CPU."""
    import onnxruntime

    encoder, matcher = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (encode, match)
    )
    features: dict[str, np.ndarray] = {}
    for side, (coarse, fine) in zip("AB", photographs, strict=True):
        names = [f"{output.name}_{side}" for output in encoder.get_outputs()]
        values = encoder.run(None, {"coarse": coarse.numpy(), "fine": fine.numpy()})
        features |= dict(zip(names, values, strict=True))
    return dict(zip(_OUTPUTS, matcher.run(None, features), strict=True))


def largest_error_px(expected: Sequence[Tensor], found: Mapping[str, np.ndarray], size: Size) -> float:
    """The largest difference between warps in px where either certainty is above 0.5; if it is nowhere, anywhere."""
    both = dict(zip(_OUTPUTS, expected, strict=True))
    certain, apart = [], []
    for way in ("AB", "BA"):
        certain.append((both[f"certainty_{way}"].numpy() > 0.5) | (found[f"certainty_{way}"] > 0.5))
        apart.append(np.linalg.norm((found[f"warp_{way}"] - both[f"warp_{way}"].numpy()) * np.array(size) / 2, axis=-1))
    judged, errors = np.stack(certain), np.stack(apart)
    return float(errors[judged if judged.any() else ...].max())
