"""The adapter for the embedded model."""

from __future__ import annotations

from pathlib import Path

from romacli import networks
from romacli.matchers.adapter import Adapter
from romacli.networks.mini import Mini, load_mini

EMBEDDED = Path(networks.__file__).parent / "mini.safetensors"
ADAPTER = Adapter(lambda paths, spec: load_mini(paths[0]), lambda spec: Mini())
