"""RoMa's relatives through the matcher interface, and a matcher added as a contributor would: one file and one row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.plane import photograph_plane
from support.seeded_relatives import published
from support.small_romav2 import SMALL, small_checkpoint
from torch import Tensor
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.errors import UsageError, WeightsError
from romacli.matchers import registry
from romacli.matchers.adapter import Adapter, decide
from romacli.matchers.adapters import romav2 as romav2_adapter
from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import MATCHERS, load_matcher, load_seeded
from romacli.networks.dkm import CLASSIFIER, DKM
from romacli.networks.dkm import checkpoint_name as dkm_name
from romacli.networks.parts.output import NetworkMatch, Unfinished
from romacli.networks.romav2 import RoMaV2
from romacli.networks.tiny_roma import TinyRoMa
from romacli.networks.tiny_roma import checkpoint_name as tiny_name
from romacli.types import CompactWarp, Defaults, WeightsEntry

Match = Callable[..., Result]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files under the published names, with seeded values; those of RoMa v2 are for a small network."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.device("meta"):
        tiny, dkm = TinyRoMa(), DKM()
    torch.save(published(tiny, tiny_name, "tiny"), folder / "tiny_roma_v1_outdoor.pth")
    torch.save(published(dkm, dkm_name, "dkm", **CLASSIFIER), folder / "DKMv3_outdoor.pth")
    state = small_checkpoint()
    torch.save(state, folder / "romav2.0.1.pt")
    torch.save(
        {name: value.clone() + (0.1 if name == "matcher.temp" else 0) for name, value in state.items()},
        folder / "romav2.pt",
    )
    return folder


@pytest.fixture
def match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path) -> Match:
    """Runs `match` over three photographs with the files above."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROMACLI_WEIGHTS_DIR", str(weights))
    real = RoMaV2.from_checkpoint
    monkeypatch.setattr(RoMaV2, "from_checkpoint", lambda state, *, release: real(state, release=release, config=SMALL))
    photograph_plane(tmp_path / "photos", ["1.png", "2.png", "3.png"])

    def run(*words: object) -> Result:
        return CliRunner().invoke(app, ["match", "photos", "--min-overlap", "0", "--json", *map(str, words)])

    return run


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("tiny-roma", ["--coarse-resolution", "96x64"]),
        ("dkm-outdoor", ["--coarse-resolution", "70x50", "--upsample-resolution", "90x66"]),
        ("roma-v2", ["--coarse-resolution", "96x64", "--upsample-resolution", "120x88"]),
        ("roma-v2.0.0", ["--coarse-resolution", "96x64", "--no-upsample"]),
    ],
)
def test_match_runs_to_its_end(match: Match, model: str, words: list[str]) -> None:
    result = match("--model", model, *words)
    assert result.exit_code in (0, 4), result.output
    assert json.loads(result.stdout)["pairs"] == 3


@pytest.mark.parametrize("model", ["tiny-roma", "dkm-outdoor", "roma-v2"])
def test_stages_and_descriptors_are_those_of_the_seam(model: str, weights: Path, match: Match) -> None:
    sizes = {"coarse_resolution": (96, 64), "upsample": False}
    options = MatcherOptions(device="cpu", min_overlap=0, min_certainty=0, **sizes)
    matcher = load_matcher(model, options)
    rng = np.random.default_rng(0)
    images = [matcher.prepare(rng.integers(0, 255, (60, 80, 3), np.uint8)) for _ in range(2)]
    a, b = matcher.encode(images)
    dense, turned = matcher.warp([(a, b), (b, a)])
    torch.testing.assert_close(dense.warp_AB, turned.warp_BA, atol=1e-3, rtol=0)
    assert isinstance(matcher.match([(a, b)], [0])[0], CompactWarp)
    coarse = matcher.encode_coarse(images)
    assert np.linalg.norm(matcher.describe(images), axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert 0 <= matcher.overlap([(coarse[0], coarse[1])])[0] <= 1


@pytest.mark.parametrize("model", ["tiny-roma", "dkm-outdoor", "roma-v2"])
def test_reduced_precision_stays_near(model: str, weights: Path, match: Match) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (60, 80, 3), np.uint8) for _ in range(2)]
    warps = []
    for dtype in ("float32", "bfloat16"):
        options = MatcherOptions(device="cpu", dtype=dtype, coarse_resolution=(96, 64), upsample=False)
        matcher = load_matcher(model, options)
        a, b = matcher.encode([matcher.prepare(picture) for picture in pictures])
        dense = matcher.warp([(a, b)])[0]
        assert dense.warp_AB.dtype == torch.float32
        assert torch.isfinite(dense.warp_AB).all()
        warps.append(dense.warp_AB)
    assert float((warps[0] - warps[1]).abs().median()) < 0.1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "roma-v2", "--weights", "romav2.pt"], "the file of RoMa v2's release 2.0.0"),
        (["--model", "roma-v2.0.0", "--weights", "romav2.0.1.pt"], "the file of RoMa v2's release 2.0.1"),
        (["--model", "roma-v2", "--weights", "DKMv3_outdoor.pth"], "those of DKM, not of RoMa v2"),
        (["--model", "dkm-outdoor", "--weights", "roma.safetensors"], "those of RoMa, not of DKM"),
        (["--model", "tiny-roma", "--weights", "half.pth"], "half.pth cannot be read as a checkpoint"),
        (["--model", "tiny-roma", "--coarse-resolution", "100x96"], "must be a multiple of 32"),
        (["--model", "tiny-roma", "--upsample-resolution", "640"], "has no second pass"),
        (["--model", "roma-v2", "--coarse-resolution", "8"], "must be a multiple of 16"),
        (["--model", "roma-v2", "--upsample-resolution", "642"], "must be a multiple of 4"),
        (["--model", "dkm-outdoor", "--coarse-resolution", "16"], "too small: model dkm-outdoor needs 32 px"),
        (["--model", "dkm-outdoor", "--dtype", "float16", "--device", "cpu"], "float16 is not supported on a CPU"),
        (["--model", "roma-v2", "--preset", "best"], "Choose from: turbo, fast, base, precise"),
        (["--model", "mini", "--preset", "fast"], "--preset fast is not known to model mini. It has none"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(match: Match, weights: Path, words: list[str], message: str) -> None:
    if "--weights" in words:
        given = weights / words[-1]
        if words[-1] == "roma.safetensors":
            save_file({"decoder.embedding_decoder.to_out.weight": torch.zeros(1)}, given)
        if words[-1] == "half.pth":
            given.write_bytes((weights / "tiny_roma_v1_outdoor.pth").read_bytes()[:1000000])
        words = [*words[:-1], str(given)]
    result = match(*words)
    assert result.exit_code in (2, 3)
    assert message in json.loads(result.stdout)["error"] if result.stdout else message in result.stderr
    assert "Traceback" not in result.output


def test_the_other_release_is_known_by_its_content_under_any_name(match: Match, weights: Path, tmp_path: Path) -> None:
    options = MatcherOptions(device="cpu", coarse_resolution=(64, 64))
    load_matcher("roma-v2.0.0", options)  # its hash is recorded at this first use
    renamed = tmp_path / "renamed.pt"
    renamed.write_bytes((weights / "romav2.pt").read_bytes())
    with pytest.raises(WeightsError, match="release 2.0.0, and --model roma-v2 runs release 2.0.1"):
        load_matcher("roma-v2", MatcherOptions(weights=renamed, device="cpu", coarse_resolution=(64, 64)))


def test_presets_give_both_sizes_and_sizes_count_more() -> None:
    spec = MATCHERS["roma-v2"]
    assert decide(spec, MatcherOptions(preset="turbo")).upsample_resolution is None
    precise = decide(spec, MatcherOptions(preset="precise"))
    assert (precise.coarse_resolution, precise.upsample_resolution) == ((800, 800), (1280, 1280))
    assert precise == decide(spec, MatcherOptions())
    by_hand = decide(spec, MatcherOptions(preset="fast", upsample_resolution=(400, 300)))
    assert (by_hand.coarse_resolution, by_hand.upsample_resolution) == ((512, 512), (400, 300))


def test_seeded_relatives_are_built_without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(romav2_adapter, "RoMaV2", lambda *, release: RoMaV2(SMALL, release=release))
    for model in ("tiny-roma", "dkm-indoor", "roma-v2"):
        matcher = load_seeded(model, MatcherOptions(device="cpu", coarse_resolution=(64, 64)))
        assert matcher.settings["model"] == model


class Mean:
    """A network for the interface: the mean colour of the whole image, and an identity warp."""

    def to(self, device: torch.device) -> Mean:
        return self

    def eval(self) -> Mean:
        return self

    def encode(self, coarse: Tensor, fine: Tensor | None = None) -> dict[str, Tensor]:
        return {"mean": coarse.mean(dim=(2, 3)), "image": coarse}

    encode_coarse = encode

    def start(self, a: dict[str, Tensor], b: dict[str, Tensor]) -> Unfinished:
        grid = torch.nn.functional.affine_grid(torch.eye(2, 3)[None], [1, 1, 32, 32], align_corners=False)
        return Unfinished({"warp": grid.expand(2 * len(a["mean"]), -1, -1, -1)}, directions=2)

    def refine(self, state: Unfinished, a: object, b: object, *, down_to: int | None = None) -> Unfinished:
        return state

    def result(self, state: Unfinished) -> NetworkMatch:
        there, back = state.tensors["warp"].chunk(2)
        return NetworkMatch(there, torch.ones(there.shape[:3]), back, torch.ones(back.shape[:3]))


def test_one_file_and_one_row_make_a_matcher(match: Match, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ModuleType("toy_adapter")
    file.ADAPTER = Adapter(load=lambda paths, spec: Mean(), seeded=lambda spec: Mean())
    monkeypatch.setitem(__import__("sys").modules, "toy_adapter", file)
    spec = registry.dense_row(
        "toy",
        "toy_adapter",
        "every photograph is the same",
        "MIT",
        weights=(WeightsEntry("toy", "https://example.org/toy.pth", "MIT", "toy.pth"),),
        defaults=Defaults((32, 32), None, coarse_step=8, upsample_step=0),
        note="A toy.",
    )
    monkeypatch.setitem(registry.MATCHERS, "toy", spec)
    (tmp_path / "toy.pth").write_bytes(b"toy")
    result = match("--model", "toy", "--weights", tmp_path / "toy.pth")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["pairs"] == 3
    told = CliRunner().invoke(app, ["models", "info", "toy"]).stdout
    assert "A toy." in told
    assert "sizes: 32x32" in told


def test_info_tells_licences_sizes_and_what_is_not_supported() -> None:
    for name, spec in MATCHERS.items():
        told = CliRunner().invoke(app, ["models", "info", name])
        assert told.exit_code == 0, told.output
        defaults = ("sizes:", "min-certainty:") if spec.defaults else ()
        for words in (spec.licence, spec.note, *defaults):
            assert words in told.stdout
    assert "military" in CliRunner().invoke(app, ["models", "info", "roma-v2"]).stdout
    with pytest.raises(UsageError, match="roma-v2, roma-v2.0.0, tiny-roma, dkm-outdoor, dkm-indoor"):
        load_matcher("dkm")
