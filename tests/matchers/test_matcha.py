"""MATCHA and its relatives through the describer interface, on small networks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from romacli.errors import UsageError, WeightsError
from romacli.matchers.describers.matcha import Parts, diffusion_folder, matcher_of
from romacli.matchers.describers.sparse import MapDescriber, SparseMatcher
from romacli.matchers.options import MatcherOptions, SparseOptions
from romacli.matchers.registry import load_matcher, load_seeded, matcher_named
from romacli.networks.backbones.dinov2 import DINOv2, DINOv2Config
from romacli.networks.dift import GEOMETRIC, Layer
from romacli.networks.matcha import Fusion, FusionConfig
from romacli.types import Correspondences

FUSION = FusionConfig(
    semantic_in=32, geometric_in=16, semantic_out=24, geometric_out=8, width=32, blocks=2, heads=4, head_width=16
)


class Patches(nn.Module):
    """Random filters in place of a denoiser."""

    def __init__(self) -> None:
        super().__init__()
        self.semantic, self.geometric = nn.Conv2d(3, 32, 24, 16, 4), nn.Conv2d(3, 16, 16, 8, 4)
        self.seeds: list[int] = []

    def forward(self, image: Tensor, layers: Sequence[Layer], *, ensemble: int, seed: int) -> list[Tensor]:
        self.seeds.append(seed)
        return [(self.geometric if layer == GEOMETRIC else self.semantic)(image - 0.5) for layer in layers]


def matcher(name: str, *, dift: bool, fusion: bool, dino: bool, **options: object) -> SparseMatcher:
    torch.manual_seed(0)
    parts = Parts(
        Patches() if dift else None,  # type: ignore[arg-type]
        Fusion(FUSION).eval() if fusion else None,
        DINOv2(DINOv2Config(dim=16, depth=1, heads=2, position_side=5)).eval() if dino else None,
    )
    return matcher_of(parts, matcher_named(name), MatcherOptions(device="cpu", **options), {})


CASES = (
    ("matcha", {"dift": True, "fusion": True, "dino": True}, 8 + 8 + 16, 8 + 8 + 24),
    ("matcha-light", {"dift": True, "fusion": True, "dino": False}, 8, 24),
    ("dift", {"dift": True, "fusion": False, "dino": False}, 16, 32),
    ("dift-dino", {"dift": True, "fusion": False, "dino": True}, 48, 48),
    ("dinov2", {"dift": False, "fusion": False, "dino": True}, 16, 16),
)


@pytest.mark.parametrize(("name", "parts", "geometric", "semantic"), CASES, ids=[case[0] for case in CASES])
def test_a_picture_matches_itself_and_maps_have_the_channels_of_their_parts(
    name: str, parts: dict[str, bool], geometric: int, semantic: int
) -> None:
    found = matcher(name, **parts, coarse_resolution=(128, 96))
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8), (0, 0), 4)
    prepared = found.prepare(image)
    features = found.encode([prepared])[0]
    assert features.tensors["descriptors"].shape[2] == geometric
    matched = found.match([(features, features)], [0])[0]
    assert isinstance(matched, Correspondences)
    np.testing.assert_array_equal(matched.keypoints0, matched.keypoints1)
    assert isinstance(found.describer, MapDescriber)
    with torch.inference_mode():
        maps = found.describer.maps(prepared.tensors, semantic=True)
    assert maps.shape[1] == semantic
    torch.testing.assert_close(maps.norm(dim=1), torch.ones_like(maps[:, 0]))
    assert found.settings["coarse_resolution"] == "128x96"


def test_the_ensemble_is_part_of_the_settings_where_there_is_noise() -> None:
    noisy = matcher("dift", dift=True, fusion=False, dino=False, sparse=SparseOptions(ensemble=3))
    assert noisy.settings["ensemble"] == 3
    assert "ensemble" not in matcher("dinov2", dift=False, fusion=False, dino=True).settings


def test_sizes_that_no_feature_fits_are_refused() -> None:
    with pytest.raises(UsageError, match="multiple of 32"):
        matcher("dinov2", dift=False, fusion=False, dino=True, coarse_resolution=(100, 96))


def test_without_diffusers_or_files_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROMACLI_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UsageError, match=r"romacli\[matcha\]"):
        load_matcher("matcha")
    with pytest.raises(WeightsError, match="models download dinov2"):
        load_matcher("dinov2")
    with pytest.raises(UsageError, match="cannot be built without its files"):
        load_seeded("matcha")


def test_the_diffusion_model_is_named_or_lies_in_the_weights_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROMACLI_WEIGHTS_DIR", str(tmp_path))
    (tmp_path / "stable-diffusion-2-1").mkdir()
    assert diffusion_folder(None) == tmp_path / "stable-diffusion-2-1"
    assert diffusion_folder(Path("/models/given")) == Path("/models/given")
