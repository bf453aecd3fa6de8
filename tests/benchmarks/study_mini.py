"""The study's own small network behind the seam of matchers, so that `photographs.py` measures it like any other.

The study's code and weights are no part of this project: they are loaded from a folder `shared` beside the checkout,
and the program ends where there is none. Its options are those of `photographs.py`, which it runs.

    python tests/benchmarks/study_mini.py DATA --cache CACHE --json study.json
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from romacli.matching.dense import IMAGENET_MEAN, IMAGENET_STD, DenseSettings, TwoPassMatcher
from romacli.matching.matcher import MatcherOptions
from romacli.models.output import NetworkMatch, Unfinished
from romacli.models.weights import sha256_of
from romacli.types import MatcherSpec

HERE = Path(__file__).resolve().parent
STUDY = HERE.parents[1].parent / "shared" / "prototypes" / "mini"
WEIGHTS = STUDY / "proto_fp16.pt"
NAME = "study-mini"
Features = Mapping[str, Tensor]


class StudyNetwork(nn.Module):
    """The study's network as a `TwoPassNetwork`: all refiners at the coarse size, then all at the fine one."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def encode(self, coarse: Tensor, fine: Tensor | None) -> dict[str, Tensor]:
        encoded = self._encode("coarse", coarse)
        return encoded if fine is None else encoded | self._encode("fine", fine)

    def encode_coarse(self, coarse: Tensor) -> dict[str, Tensor]:
        return self._encode("coarse", coarse)

    def start(self, features_A: Features, features_B: Features) -> Unfinished:
        one, other = _both(features_A, features_B, "coarse", 16)
        logits, certainty, _ = self.network.mat(one[0], other[0])
        return Unfinished({"warp": self.network.mat.decode(logits), "certainty": certainty}, directions=2)

    def refine(
        self, state: Unfinished, features_A: Features, features_B: Features, *, down_to: int | None = None
    ) -> Unfinished:
        warp, certainty = state.tensors["warp"], state.tensors["certainty"]
        steps = [
            (image, k) for image in ("coarse", "fine") for k in self.network.scales if f"{image}_{k}" in features_A
        ]
        end = len(steps) if down_to is None else sum(image == "coarse" and k >= down_to for image, k in steps)
        for image, stride in steps[state.steps : end]:
            one, other = _both(features_A, features_B, image, stride)
            shape = one[0].shape[2:]
            warp = _resized(warp.permute(0, 3, 1, 2), shape).permute(0, 2, 3, 1)
            certainty = _resized(certainty[:, None], shape)[:, 0]
            warp, certainty = self.network.ref[str(stride)](one, other, warp, certainty)
        return Unfinished({"warp": warp, "certainty": certainty}, 2, max(state.steps, end))

    def result(self, state: Unfinished) -> NetworkMatch:
        warp, certainty = state.tensors["warp"], state.tensors["certainty"]
        inside = (warp.abs() <= 1).all(dim=-1)
        warp_AB, warp_BA = warp.clamp(-1, 1).chunk(2)
        certainty_AB, certainty_BA = (certainty.sigmoid() * inside).chunk(2)
        return NetworkMatch(warp_AB, certainty_AB, warp_BA, certainty_BA)

    def _encode(self, image: str, normalised: Tensor) -> dict[str, Tensor]:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        encoded = {}
        for stride, maps in self.network.encode((normalised * std + mean) * 255).items():
            found, descriptors = maps if isinstance(maps, tuple) else (maps, None)
            encoded[f"{image}_{stride}"] = found
            if descriptors is not None:
                encoded[f"{image}_{stride}_descriptors"] = descriptors
        return encoded


def _both(
    features_A: Features, features_B: Features, image: str, stride: int
) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
    """Features and descriptors of the sources of both directions, A's, then B's, and those of their targets."""
    sides = []
    for first, second in ((features_A, features_B), (features_B, features_A)):
        keys = (f"{image}_{stride}", f"{image}_{stride}_descriptors")
        maps, descriptors = (torch.cat((first[key], second[key])) if key in first else None for key in keys)
        assert maps is not None
        sides.append((maps, descriptors))
    return sides[0], sides[1]


def _resized(maps: Tensor, shape: torch.Size) -> Tensor:
    return F.interpolate(maps, shape, mode="bilinear", align_corners=False)


def build(options: MatcherOptions, name: str) -> TwoPassMatcher:
    """With the study's sizes and certainty, on the CPU; what else it rejects is the project's choice."""
    sys.path.append(str(STUDY))
    network = import_module("model").Mini()
    stored = torch.load(WEIGHTS, weights_only=True)["sd"]
    network.load_state_dict({key: value.float() for key, value in stored.items()})
    settings = DenseSettings(
        model=name,
        weights_sha256=sha256_of(WEIGHTS),
        coarse_resolution=(256, 256),
        upsample_resolution=(640, 640),
        min_certainty=0.5,
        min_overlap=options.min_overlap,
        dtype="float32",
    )
    return TwoPassMatcher(StudyNetwork(network.eval()), settings, device=torch.device("cpu"), autocast=False)


SPEC = MatcherSpec(NAME, build, "the study's small network", "not part of this project")


def main() -> None:
    if not WEIGHTS.is_file():
        sys.exit(f"{WEIGHTS} is not there. Put the study's folder beside the checkout.")
    with TemporaryDirectory() as folder:
        metadata = Path(folder) / "study_mini-0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: study-mini\nVersion: 0\n")
        (metadata / "entry_points.txt").write_text(f"[romacli.matchers]\n{NAME} = study_mini:SPEC\n")
        paths = [folder, str(HERE), str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        words = [sys.executable, str(HERE / "photographs.py"), *sys.argv[1:], "--model", NAME]
        done = subprocess.run(words, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
