"""Denoiser features against arrays of the authors' code with diffusers, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.golden import GOLDEN, PARITY, compared, meta
from support.seeded_matcha import field, seeded_matcha

from romacli.errors import UsageError, WeightsError
from romacli.networks.dift import GEOMETRIC, SEMANTIC, Dift, load_dift, require_model, seed_of

FOLDERS = (GOLDEN, PARITY / "matcha")
CASES = sorted({path.name: path for folder in FOLDERS for path in folder.glob("golden_dift*.npz")}.values())
LIMITS = (("feat", 1e-4), ("", 2e-5))


def small_dift(golden: dict[str, np.ndarray]) -> Dift:
    diffusers = pytest.importorskip("diffusers")
    told = meta(golden)
    parts = {}
    for name, kind in (("unet", diffusers.UNet2DConditionModel), ("vae", diffusers.AutoencoderKL)):
        network = kind(**told[f"{name}_config"])
        layout = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        used = {key: shape for key, shape in layout.items() if not key.startswith(("decoder", "post_quant"))}
        network.load_state_dict(seeded_matcha(used, group=name), strict=name == "unet")
        parts[name] = network
    return Dift(parts["vae"], parts["unet"], torch.from_numpy(golden["prompt_embeds"]))


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
@torch.no_grad()
def test_features_agree_with_the_authors_code(path: Path) -> None:
    golden = dict(np.load(path))
    told, dift = meta(golden), small_dift(golden)
    image = field("image", (told["batch"], 3, told["height"], told["width"]), told["input_seed"], 0.2, smooth=2) + 0.5
    posterior = dift.posterior(image)
    stages = {"vae_mean": posterior[0], "vae_logvar": 2 * posterior[1].log()}
    for tag, layer in (("c", SEMANTIC), ("f", GEOMETRIC)):
        noises = [torch.from_numpy(golden[f"eps_{kind}_{tag}"]).split(told["batch"]) for kind in ("vae", "diff")]
        noisy = [dift.noisy(posterior, layer, noise) for noise in zip(*noises, strict=True)]
        members = [dift.feature(each, layer) for each in noisy]
        stages[f"noisy_{tag}"] = torch.cat(noisy)
        stages[f"feat_{tag}_members"] = torch.cat(members)
        stages[f"feat_{tag}"] = torch.stack(members).mean(0)
    found = compared(golden, stages, LIMITS)
    assert len(found) == len(stages)
    assert [each for each in found if each.is_too_large] == []
    np.testing.assert_allclose(dift.signal[[1, 261]].numpy(), golden["alphas_cumprod_1_261"], rtol=1e-6)


@torch.no_grad()
def test_an_image_has_the_same_features_every_time_and_another_image_other_noise() -> None:
    dift = small_dift(dict(np.load(CASES[0])))
    pixels = torch.randint(0, 255, (2, 1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seeds = [seed_of(each) for each in pixels]
    first = dift(pixels[0] / 255, (SEMANTIC, GEOMETRIC), ensemble=2, seed=seeds[0])
    again = dift(pixels[0] / 255, (SEMANTIC, GEOMETRIC), ensemble=2, seed=seeds[0])
    assert [tuple(each.shape) for each in first] == [(1, 96, 4, 4), (1, 64, 8, 8)]
    assert all(map(torch.equal, first, again))
    assert seeds[0] != seeds[1]
    assert seeds[0] == seed_of(pixels[0].clone())


def model_folder(root: Path, *, width: int = 1024, prediction: str = "v_prediction") -> Path:
    configs = {
        "unet/config.json": {"cross_attention_dim": width, "block_out_channels": [320, 640, 1280, 1280]},
        "scheduler/scheduler_config.json": {"prediction_type": prediction},
        "vae/config.json": {},
    }
    for name, config in configs.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(config))
    return root


def test_only_the_model_meant_is_taken(tmp_path: Path) -> None:
    require_model(model_folder(tmp_path / "right"))
    with pytest.raises(WeightsError, match="Stable Diffusion 1, .* 768 wide"):
        require_model(model_folder(tmp_path / "older", width=768))
    with pytest.raises(WeightsError, match="base or a variant"):
        require_model(model_folder(tmp_path / "base", prediction="epsilon"))
    with pytest.raises(WeightsError, match="cannot be read.*--diffusion"):
        require_model(tmp_path)


def test_without_diffusers_it_is_said_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UsageError, match=r"romacli\[matcha\]"):
        load_dift(tmp_path)
