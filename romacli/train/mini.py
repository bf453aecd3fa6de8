"""Training of the mini network: three sizes, first with one pass and then with two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

from romacli.errors import UsageError
from romacli.matchers.dense import normalise
from romacli.matchers.device import has_fast_bfloat16
from romacli.networks.mini import LAYOUT, Mini, read_mini, weights_of, with_context
from romacli.networks.mini_config import MiniConfig, config_to_json
from romacli.synthetic.curriculum import share_found

from .losses import mini_loss
from .muon import is_matrix
from .options import COARSE, TrainOptions
from .setups import chosen, mini_config
from .trainable import Batch, Phase, Trainable, cosine_decay

SIZES = (192, 224, 320)  # many small pairs first, when their number matters most; finally as photographs are matched
SIZES_FROM_WEIGHTS = SIZES[:2]  # in trained weights, a last phase of two passes made fewer points right
PHASE_ENDS = (0.35, 0.78)
COARSE_SHARE = 0.6  # side of the first of two passes, as a share of the last size
STRIDE = 16
LEARNING_RATE = 2e-3
CONSTANT_SHARE = 0.2  # share of the schedule at full learning rate, before the cosine decay


class MiniTrainable(Trainable):
    """The mini network; in bfloat16 if that is faster on the device."""

    network: Mini
    clip_norm = 3.0
    betas = (0.9, 0.98)

    def __init__(self, options: TrainOptions, device: torch.device, devices: int = 1) -> None:
        config = options.config if isinstance(options.config, MiniConfig) else MiniConfig()
        setup = chosen(options.setup)
        if options.setup is not None:
            config = mini_config(options.setup, config)
        network = with_context(read_mini(options.start), config) if options.start else Mini(config)
        if setup is not None and network.config != config:
            raise UsageError(
                f"{options.start} does not fit --setup {options.setup} of mini. Leave --from or --setup out."
            )
        precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
        super().__init__(
            network.to(device), options.sizes or (SIZES_FROM_WEIGHTS if options.start else SIZES), precision
        )
        if len(self.sizes) not in (2, 3) or any(side % STRIDE or side <= 0 for side in self.sizes):
            raise UsageError(
                f"--sizes of mini must be three multiples of {STRIDE}, such as 192,224,320, or two, such as 192,224, "
                "for a schedule without the last phase."
            )
        self.robust = setup is None or setup.robust
        self.learning_rate = options.learning_rate or LEARNING_RATE
        self.kept = network.finer_parts() if options.part == COARSE else ()
        for module in self.kept:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """As of any module, except that parts which are kept hold their batch norm statistics, too."""
        super().train(mode)
        for module in self.kept:
            module.eval()
        return self

    def forward(self, batch: Batch, phase: Phase) -> tuple[Tensor, dict[str, Tensor]]:
        images, warp, visible = batch
        images = normalise(images)
        coarse, fine = images, None
        if phase.coarse_size is not None and images.shape[-1] == phase.size:
            shape = (phase.coarse_size, phase.coarse_size)
            coarse, fine = F.interpolate(images, shape, mode="bilinear", antialias=True), images
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            encoded = self.network.encode_coarse(coarse) if self.kept else self.network.encode(coarse, fine)
            trace = self.network.trace(encoded)
        self.found = share_found(trace.stages[0].warp, warp, visible)
        return mini_loss(self.network, encoded, trace, warp, visible, robust=self.robust)

    def phase_at(self, progress: float) -> Phase:
        small, middle, *fine = self.sizes
        if progress < PHASE_ENDS[0]:
            return Phase(small)
        if not fine or progress < PHASE_ENDS[1]:
            return Phase(middle)
        return Phase(fine[0], round(fine[0] * COARSE_SHARE / STRIDE) * STRIDE)

    def rate_at(self, progress: float) -> float:
        return cosine_decay(progress, constant=CONSTANT_SHARE)

    def parameter_groups(self) -> list[dict[str, Any]]:
        weights = list(self.network.parameters())
        return [
            {"params": [value for value in weights if is_matrix(value)], "lr": self.learning_rate, "orthogonal": True},
            {"params": [value for value in weights if not is_matrix(value)], "lr": self.learning_rate},
        ]

    def fingerprint(self) -> str:
        return f"{LAYOUT} {config_to_json(self.network.config)} Muon" + ("" if self.robust else " by mean distances")

    def exported(self, facts: Mapping[str, str]) -> bytes:
        """The weight file, in half precision: matches show no difference."""
        tensors = {key: value.detach().cpu().half().contiguous() for key, value in weights_of(self.network).items()}
        return save(tensors, {"layout": LAYOUT, "config": config_to_json(self.network.config), **facts})
