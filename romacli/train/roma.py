"""Training of RoMa: DINOv2 frozen, VGG19 at a low learning rate, the rest at the full one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from romacli.errors import UsageError, WeightsError
from romacli.matchers.dense import normalise
from romacli.matchers.registry import DINOV2
from romacli.networks.roma import DINOV2_PREFIX, PUBLISHED, RoMa, RoMaConfig, checkpoint_name
from romacli.networks.weights import locate, read_state_dict, require_layout, weights_folder

from .losses import roma_loss
from .options import TrainOptions
from .setups import chosen, roma_config
from .trainable import Batch, Phase, Trainable

SIZES = (560,)  # 448 in the paper's ablations
STRIDE = 56  # a multiple of the patches' 14 px and of the pyramid's 8
# For the decoder and the refiners at a batch of 8; the encoder's is a twentieth (appendix B).
LEARNING_RATE = 1e-4
ENCODER_SHARE = 5e-6 / 1e-4
LAST_STEPS = 0.9  # of the schedule; after it, a tenth of the rate, as in the authors' code
ENCODERS = ("vgg.", "resnet.", "fine_resnet.")


class RoMaTrainable(Trainable):
    """RoMa at one size and in one pass; bfloat16 on a GPU, except for what the network keeps in float32."""

    network: RoMa
    clip_norm = 0.01  # as in the authors' code
    frozen = (DINOV2_PREFIX,)

    def __init__(self, options: TrainOptions, device: torch.device, devices: int = 1) -> None:
        sizes = options.sizes or SIZES
        if len(sizes) != 1 or sizes[0] % STRIDE or sizes[0] <= 0:
            raise UsageError(f"--sizes of roma must be one multiple of {STRIDE}, such as 448 or 560.")
        config = options.config if isinstance(options.config, RoMaConfig) else PUBLISHED
        setup = chosen(options.setup)
        if setup is not None:
            config = roma_config(setup, config)
        network = _initial(options, config).to(device)
        super().__init__(network, sizes, "bfloat16" if device.type == "cuda" else "float32")
        self.robust = setup is None or setup.robust
        self.learning_rate = options.learning_rate or LEARNING_RATE * options.batch_size * devices / 8

    def forward(self, batch: Batch, phase: Phase) -> tuple[Tensor, dict[str, Tensor]]:
        images, warp, visible = batch
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            encoded = self.network.encode(normalise(images))
            halves = ({name: tensor.chunk(2)[i] for name, tensor in encoded.items()} for i in range(2))
            trace = self.network.trace(*halves)
        return roma_loss(trace, warp, visible, classifies=self.network.config.classifies, robust=self.robust)

    def phase_at(self, progress: float) -> Phase:
        return Phase(self.sizes[0])

    def rate_at(self, progress: float) -> float:
        return 1.0 if progress < LAST_STEPS else 0.1

    def parameter_groups(self) -> list[dict[str, Any]]:
        named = [(name, value) for name, value in self.network.named_parameters() if value.requires_grad]
        encoder = [value for name, value in named if name.startswith(ENCODERS)]
        rest = [value for name, value in named if not name.startswith(ENCODERS)]
        return [
            {"params": rest, "lr": self.learning_rate},
            {"params": encoder, "lr": self.learning_rate * ENCODER_SHARE},
        ]

    def fingerprint(self) -> str:
        return repr(self.network.config) + ("" if self.robust else " by mean distances")

    def exported(self, facts: Mapping[str, str]) -> bytes:
        """The layout of RoMa's published checkpoints, in float32, with the components it was built from."""
        tensors = {checkpoint_name(k): v.detach().cpu().contiguous() for k, v in self.trained().items()}
        return save(tensors, {"parts": json.dumps(self.network.config.variation), **facts})


def _initial(options: TrainOptions, config: RoMaConfig) -> RoMa:
    """A network with given weights, or random ones on DINOv2 and, if given, an encoder's published weights."""
    has_dinov2 = config.coarse_encoder == "dinov2"
    parts = {"--dinov2": has_dinov2, "--vgg": config.fine_encoder == "vgg19", "--resnet": not has_dinov2}
    for option, used in parts.items():
        if getattr(options, option[2:]) is not None and not used:
            raise UsageError(f"{option} is not used by setup {options.setup or 'VII'}. Leave it out.")
    if options.start is not None:
        roma = read_state_dict(options.start)
    else:
        state = RoMa(config).state_dict()
        roma = {checkpoint_name(k): v for k, v in state.items() if not k.startswith(DINOV2_PREFIX)}
        if options.vgg is not None:
            roma |= _features(options.vgg, roma, "features.", "encoder.cnn.layers.", "VGG19-BN")
        if options.resnet is not None:
            for prefix in ("encoder.net.", "encoder.fine_net."):
                roma |= _features(options.resnet, roma, "", prefix, "ResNet-50")
    dinov2 = read_state_dict(options.dinov2 or _located()) if has_dinov2 else {}
    network = RoMa.from_checkpoints(roma, dinov2, config=config, fold=False)
    for name, value in network.named_parameters():
        value.requires_grad_(not name.startswith(DINOV2_PREFIX))
    return network


def _features(path: Path, roma: Mapping[str, Tensor], theirs: str, ours: str, what: str) -> dict[str, Tensor]:
    """An encoder's tensors under RoMa's names, from torchvision's file of the whole network."""
    names = {theirs + name.removeprefix(ours): name for name in roma if name.startswith(ours)}
    found = {key: value for key, value in read_state_dict(path).items() if key in names}
    expected = {k: tuple(roma[name].shape) for k, name in names.items() if k in found or "num_batches" not in k}
    require_layout(found, expected, what=what)
    return {names[key]: value for key, value in found.items()}


def _located() -> Path:
    path = locate(DINOV2)
    if path is None:
        raise WeightsError(
            f"RoMa is trained on {DINOV2.file_name}, which is not on this machine. Run `romacli models download "
            f"roma-outdoor`, or fetch {DINOV2.url} and place it in {weights_folder()}, or give it with --dinov2."
        )
    return path
