"""The adapter for RoMa v2's published checkpoints.

Both releases have the same layout but need different arithmetic. They are told apart by what is known beyond the
tensors: the model the file is given to, its name, and whether it was used as the other release before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from romacli.errors import WeightsError
from romacli.matchers import registry
from romacli.matchers.adapter import Adapter
from romacli.networks.romav2 import RoMaV2
from romacli.networks.romav2 import resize as resize_pictures
from romacli.networks.weights import expected_path, read_state_dict, recorded_sha256, sha256_of
from romacli.types import MatcherSpec, Size

RELEASES = {"roma-v2": "2.0.1", "roma-v2.0.0": "2.0.0"}  # by model


def _load(paths: Sequence[Path], spec: MatcherSpec) -> RoMaV2:
    _refuse_the_other_release(paths[0], spec)
    return RoMaV2.from_checkpoint(read_state_dict(paths[0]), release=RELEASES[spec.name])


def _refuse_the_other_release(path: Path, spec: MatcherSpec) -> None:
    """Raise WeightsError for a file that has the other release's name, or was used as that release before."""
    for name in RELEASES.keys() - {spec.name}:
        entry = registry.MATCHERS[name].weights[0]
        is_known = recorded_sha256(expected_path(entry)) == sha256_of(path) if path.is_file() else False
        if path.name == entry.file_name or is_known:
            raise WeightsError(
                f"{path} is the file of RoMa v2's release {RELEASES[name]}, and --model {spec.name} runs release "
                f"{RELEASES[spec.name]}, whose arithmetic differs. Use --model {name}, or give "
                f"{spec.weights[0].file_name}."
            )


def _seeded(spec: MatcherSpec) -> RoMaV2:
    network = RoMaV2(release=RELEASES[spec.name])
    nn.init.normal_(network.omega, std=2 * torch.pi)
    return network


def _resized(image: np.ndarray, size: Size) -> Tensor:
    """RGB uint8 (H, W, 3) as (1, 3, height, width) float32, scaled from [0, 1] and not clamped."""
    picture = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
    return resize_pictures(picture, (size[1], size[0]))


# The network normalises by itself.
ADAPTER = Adapter(_load, _seeded, resize=_resized, normalise=lambda image: image)
