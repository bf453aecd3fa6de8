"""The adapter for DKM's published checkpoints."""

from __future__ import annotations

from romacli.matchers.adapter import Adapter
from romacli.networks.dkm import DKM
from romacli.networks.weights import read_state_dict

ADAPTER = Adapter(lambda paths, spec: DKM.from_checkpoint(read_state_dict(paths[0])), lambda spec: DKM())
