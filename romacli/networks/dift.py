"""Features of Stable Diffusion's denoiser, as used by MATCHA. The networks themselves are from `diffusers`.

Source: Tang et al., Emergent Correspondence from Image Diffusion (arXiv 2306.03881), with MATCHA's two choices of time
and layer. Images stay in [0, 1], which the autoencoder does not expect, but MATCHA was trained this way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from romacli.errors import UsageError, WeightsError

STRIDE = 8  # of latents and of the geometric map
INSTALL = "pip install 'romacli[matcha]'"
# The required model: others have features of the same shapes, but the fusion network was not trained on them.
_MODEL = "stable-diffusion-2-1"
_BLOCK_CHANNELS, _PROMPT_WIDTH, _PREDICTION = [320, 640, 1280, 1280], 1024, "v_prediction"
_PROMPT_FILE = "empty_prompt.safetensors"
_STEPS, _BETA_ROOTS = 1000, (0.00085**0.5, 0.012**0.5)


@dataclass(frozen=True)
class Layer:
    """Where a feature is read: the diffusion time step and the block of the upward path."""

    time: int
    block: int


SEMANTIC, GEOMETRIC = Layer(261, 1), Layer(1, 2)


class _Reached(Exception):
    """Raised once the layer is computed; the rest of the network is not needed."""


class Dift(nn.Module):
    """Feature maps of images, from the autoencoder and the denoiser of a diffusion model."""

    prompt: Tensor

    def __init__(self, vae: Any, unet: Any, prompt: Tensor) -> None:
        """Take diffusers' AutoencoderKL and UNet2DConditionModel, and the empty prompt's embedding (1, 77, D)."""
        super().__init__()
        self.vae, self.unet = vae, unet
        unet.up_blocks[-1] = nn.Identity()  # never run; a shorter list would change sizes further down
        self.register_buffer("prompt", prompt, persistent=False)
        betas = torch.linspace(*_BETA_ROOTS, _STEPS, dtype=torch.float32) ** 2
        self.signal = (1 - betas).cumprod(0)
        self.eval().requires_grad_(False)

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (B, 4, H / 8, W / 8) of the latents of images (B, 3, H, W) in [0, 1]."""
        found = self.vae.encode(image).latent_dist
        return found.mean, found.std

    def noisy(self, posterior: tuple[Tensor, Tensor], layer: Layer, noise: tuple[Tensor, Tensor]) -> Tensor:
        """Latents at a layer's time: sampled with the first noise, diffused with the second (B, 4, H / 8, W / 8)."""
        mean, deviation = posterior
        latents = (mean + deviation * noise[0]) * self.vae.config.scaling_factor
        signal = self.signal[layer.time].to(latents)
        return signal.sqrt() * latents + (1 - signal).sqrt() * noise[1]

    def feature(self, noisy: Tensor, layer: Layer) -> Tensor:
        """The output (B, C, h, w) of a block: stride 16 and 1280 channels for SEMANTIC, 8 and 640 for GEOMETRIC."""
        kept: list[Tensor] = []

        def stop(module: nn.Module, inputs: Any, output: Tensor) -> None:
            kept.append(output)
            raise _Reached

        handle = self.unet.up_blocks[layer.block].register_forward_hook(stop)
        try:
            with contextlib.suppress(_Reached):
                self.unet(noisy, layer.time, encoder_hidden_states=self.prompt.expand(len(noisy), -1, -1))
        finally:
            handle.remove()
        return kept[0]

    def forward(self, image: Tensor, layers: Sequence[Layer], *, ensemble: int, seed: int) -> list[Tensor]:
        """Maps of each layer, averaged over an ensemble of noises.

        Args:
            image: (B, 3, H, W) in [0, 1], sides multiples of 8.
            ensemble: number of noise samples, processed one by one so that memory does not grow.
            seed: equal seeds give equal maps, on any device up to rounding.
        """
        generator = torch.Generator().manual_seed(seed)
        posterior = self.posterior(image.to(self.prompt.dtype))

        def draw() -> Tensor:
            return torch.randn(posterior[0].shape, generator=generator).to(posterior[0])

        maps = []
        for layer in layers:
            members = (self.feature(self.noisy(posterior, layer, (draw(), draw())), layer) for _ in range(ensemble))
            maps.append(torch.stack(list(members)).mean(0))
        return maps


def seed_of(image: Tensor) -> int:
    """A 63-bit seed from an image's bytes alone, so that its features do not depend on order or batch."""
    return int.from_bytes(hashlib.blake2b(image.cpu().numpy().tobytes(), digest_size=8).digest(), "little") >> 1


def load_dift(folder: Path) -> Dift:
    """Load the model from a folder in diffusers' layout: `unet`, `vae`, `scheduler` and the empty prompt's embedding.

    The embedding is read from `empty_prompt.safetensors`, or else computed by the folder's `tokenizer` and
    `text_encoder`.

    Raises:
        UsageError: diffusers, or transformers for the embedding, is not installed.
        WeightsError: the folder lacks a part, or contains a model other than Stable Diffusion 2.1.
    """
    require_diffusers()
    require_model(folder)
    from diffusers import AutoencoderKL, UNet2DConditionModel

    try:
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True)
        vae = AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{folder} cannot be read as {_MODEL}: {str(error).splitlines()[0]}") from error
    return Dift(vae, unet, _empty_prompt(folder))


def require_diffusers() -> None:
    """Check that diffusers can be imported.

    Raises:
        UsageError: it cannot.
    """
    try:
        import diffusers  # noqa: F401
    except ImportError as error:
        raise UsageError(f"features of Stable Diffusion need the package diffusers: {INSTALL}") from error


def require_model(folder: Path) -> None:
    """Check that a folder contains Stable Diffusion 2.1, judged by its configuration files.

    Raises:
        WeightsError: it contains another model, or none.
    """
    configs = {}
    for part, file in (("unet", "config.json"), ("scheduler", "scheduler_config.json"), ("vae", "config.json")):
        try:
            configs[part] = json.loads((folder / part / file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{folder / part / file} cannot be read. Give a folder of {_MODEL}, in diffusers' layout, with "
                "--diffusion."
            ) from error
    unet = configs["unet"]
    width = unet.get("cross_attention_dim")
    if width != _PROMPT_WIDTH or list(unet.get("block_out_channels", [])) != _BLOCK_CHANNELS:
        other = "Stable Diffusion 1" if width == 768 else "another model"
        raise WeightsError(
            f"{folder} contains {other}, whose prompts are {width} wide, not {_MODEL} with {_PROMPT_WIDTH}. The fusion "
            f"network was trained only on the latter; give its folder."
        )
    if configs["scheduler"].get("prediction_type") != _PREDICTION:
        raise WeightsError(f"{folder} contains {_MODEL}-base or a variant, not {_MODEL}. Give the latter's folder.")


def _empty_prompt(folder: Path) -> Tensor:
    """The embedding (1, 77, 1024) of the empty prompt."""
    file = folder / _PROMPT_FILE
    if file.is_file():
        from safetensors.torch import load_file

        return next(iter(load_file(file).values()))
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        raise UsageError(f"the prompt's embedding needs transformers, or {file}: {INSTALL}") from error
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder} lacks its tokenizer or text_encoder, and {_PROMPT_FILE}.") from error
    words = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    with torch.inference_mode():
        embedding: Tensor = encoder(words.input_ids)[0]
    return embedding.clone()
