from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_roma import SMALL, photographs, small_matcher, small_roma

from romacli.errors import InputError, UsageError
from romacli.matchers import device
from romacli.matchers.adapters import roma as adapter
from romacli.matchers.dense import normalise, resize
from romacli.matchers.device import resolve_device, resolve_dtype
from romacli.matchers.matcher import EITHER_DTYPE, DenseMatcher, kept_settings
from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import load_matcher, load_seeded, matchers
from romacli.matchers.resolution import check_multiple, parse_resolution
from romacli.networks.roma import RoMa, RoMaConfig


@pytest.mark.parametrize("size", [(56, 42), (300, 200), (123, 77)])
def test_resize_is_pillows_bicubic_within_two_grey_levels(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    image = np.kron(rng.integers(0, 255, (20, 30, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    expected = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)).astype(int)
    found = resize(image, size)[0].permute(1, 2, 0).numpy().astype(int)
    assert found.shape == expected.shape
    difference = np.abs(found - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.05


def test_normalise_takes_out_imagenets_mean_and_deviation() -> None:
    pixel = torch.tensor([255, 0, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225])
    torch.testing.assert_close(normalise(pixel)[0, :, 0, 0], expected)


def test_matcher_is_dense_and_answers_at_network_resolution_with_photograph_sizes() -> None:
    matcher = small_matcher()
    assert isinstance(matcher, DenseMatcher)
    a, b = matcher.encode([matcher.prepare(image) for image in photographs(2)])
    dense = matcher.warp([(a, b)])[0]
    assert dense.warp_AB.shape == (80, 96, 2)
    assert dense.certainty_AB.shape == (80, 96)
    assert (dense.size_A, dense.size_B) == ((90, 60), (90, 70))
    assert a.nbytes > 0


def test_pair_turned_round_gives_the_same_warps_turned_round() -> None:
    matcher = small_matcher()
    a, b = matcher.encode([matcher.prepare(image) for image in photographs(2)])
    there, back = matcher.warp([(a, b), (b, a)])
    assert back.warp_BA is not None
    torch.testing.assert_close(there.warp_AB, back.warp_BA, atol=1e-4, rtol=0)


def test_batch_of_pairs_equals_pairs_alone() -> None:
    matcher = small_matcher()
    features = matcher.encode([matcher.prepare(image) for image in photographs(3)])
    pairs = [(features[0], features[1]), (features[1], features[2])]
    together = matcher.warp(pairs)
    for pair, batched in zip(pairs, together, strict=True):
        torch.testing.assert_close(matcher.warp([pair])[0].warp_AB, batched.warp_AB, atol=1e-4, rtol=0)


def test_reduced_precision_gives_finite_float32_warps() -> None:
    matcher = small_matcher(torch.bfloat16)
    a, b = matcher.encode([matcher.prepare(image) for image in photographs(2)])
    dense = matcher.warp([(a, b)])[0]
    assert dense.warp_AB.dtype == torch.float32
    assert torch.isfinite(dense.warp_AB).all()


def test_too_little_overlap_is_a_rejection_with_its_score() -> None:
    from romacli.types import Rejected

    matcher = small_matcher(min_overlap=1.1)
    a, b = matcher.encode([matcher.prepare(image) for image in photographs(2)])
    result = matcher.match([(a, b)], [0])[0]
    assert isinstance(result, Rejected)
    assert 0 <= result.overlap <= 1


def test_settings_are_spelled_as_options_are() -> None:
    assert small_matcher().settings["coarse_resolution"] == "70x56"


def test_embedded_model_loads_by_name() -> None:
    matcher = load_matcher("mini")
    assert matcher.settings["model"] == "mini"
    assert set(matchers()) >= {"mini", "roma-outdoor", "roma-indoor"}


@pytest.mark.parametrize(("word", "size"), [("560", (560, 560)), ("640x480", (640, 480))])
def test_resolution_words(word: str, size: tuple[int, int]) -> None:
    assert parse_resolution(word, "--coarse-resolution") == size


@pytest.mark.parametrize("word", ["0", "560x", "x560", "560x0", "big", "-5", "5.5"])
def test_resolution_words_that_are_none(word: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_resolution(word, "--coarse-resolution")


def test_multiple_names_the_sizes_that_would_do() -> None:
    for fits in (None, (560, 420)):
        check_multiple(fits, 14, "--coarse-resolution")
    with pytest.raises(UsageError, match="must be a multiple of 14 on both sides. Use 560x420 or 574x434."):
        check_multiple((561, 421), 14, "--coarse-resolution")


def test_devices_and_types_that_are_not_there() -> None:
    cpu = torch.device("cpu")
    assert resolve_device("cpu") == cpu
    assert resolve_dtype("auto", cpu) == torch.float32
    assert resolve_dtype("auto", torch.device("cuda")) == torch.float16
    assert resolve_dtype(EITHER_DTYPE, torch.device("cuda")) == torch.bfloat16
    with pytest.raises(InputError, match="--device cuda:99 is not available"):
        resolve_device("cuda:99")
    with pytest.raises(UsageError, match="--dtype float16 is not supported on a CPU"):
        resolve_dtype("float16", cpu)


@pytest.mark.parametrize("fast", [False, True])
def test_only_a_matcher_measured_in_bfloat16_gets_it_by_itself(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(device, "has_fast_bfloat16", lambda _: fast)
    words = ("auto", EITHER_DTYPE, "float32")
    chosen, going_on, given = (load_seeded("mini", MatcherOptions(device="cpu", dtype=word)) for word in words)
    assert chosen.settings["dtype"] == ("bfloat16" if fast else "float32")
    assert given.settings["dtype"] == "float32"
    assert kept_settings(chosen)["dtype"] == EITHER_DTYPE
    assert kept_settings(going_on) == kept_settings(chosen)
    assert kept_settings(given) == given.settings
    other = load_seeded("tiny-roma", MatcherOptions(device="cpu"))
    assert kept_settings(other)["dtype"] == other.settings["dtype"] == "float32"


def test_another_backbone_is_another_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network = small_roma()
    monkeypatch.setenv("ROMACLI_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setattr("romacli.matchers.adapters.roma.read_state_dict", lambda path: {})
    monkeypatch.setattr("romacli.matchers.adapters.roma.RoMa.from_checkpoints", lambda *_, **__: network)
    (tmp_path / "roma_outdoor.pth").write_bytes(b"roma")
    found = []
    for content in (b"dinov2", b"another"):
        (tmp_path / "dinov2_vitl14_pretrain.pth").write_bytes(content)
        (tmp_path / "dinov2_vitl14_pretrain.pth.sha256").unlink(missing_ok=True)
        found.append(load_matcher("roma-outdoor").settings)
    assert found[0]["weights_sha256"] == found[1]["weights_sha256"]
    assert found[0]["backbone_sha256"] != found[1]["backbone_sha256"]


def test_seeded_weights_follow_from_the_seed_and_leave_torchs_own_alone() -> None:
    state = torch.random.get_rng_state()
    options = MatcherOptions(device="cpu", min_overlap=0.5)
    first, again, other = (load_seeded("mini", options, seed=seed) for seed in (0, 0, 1))
    weights = [next(matcher.network.trunk.parameters()) for matcher in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.settings["min_overlap"] == 0


def test_seeded_roma_is_the_whole_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "RoMa", SmallRoMa)
    matcher = load_seeded("roma-outdoor", MatcherOptions(device="cpu", dtype="bfloat16"))
    assert {parameter.dtype for parameter in matcher.network.dinov2.parameters()} == {torch.bfloat16}
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in matcher.network.modules())
    assert all(parameter.isfinite().all() for parameter in matcher.network.parameters())


class SmallRoMa(RoMa):
    """RoMa with small sizes unless others are given."""

    def __init__(self, config: RoMaConfig = SMALL) -> None:
        super().__init__(config)

    @classmethod
    def from_checkpoints(cls, *state: Mapping[str, torch.Tensor], **more: Any) -> RoMa:
        return super().from_checkpoints(*state, config=SMALL)
