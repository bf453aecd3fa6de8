"""The adapter for Tiny RoMa's published checkpoint."""

from __future__ import annotations

from romacli.matchers.adapter import Adapter
from romacli.networks.tiny_roma import TinyRoMa
from romacli.networks.weights import read_state_dict

ADAPTER = Adapter(
    lambda paths, spec: TinyRoMa.from_checkpoint(read_state_dict(paths[0])),
    lambda spec: TinyRoMa(),
    normalise=lambda image: image.float() / 255,  # the network normalises by itself
)
