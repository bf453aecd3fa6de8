"""Fixtures shared by the tests of several rooms; heavy imports are delayed until a fixture is used."""

from __future__ import annotations

from typing import Any

import pytest

SEED = 6  # of all golden arrays
DIGESTS = {"roma": "bdffc8ff94ffa4e0", "dinov2": "cc90609b08266f47"}


@pytest.fixture(scope="session")
def seeded_checkpoints() -> tuple[dict[str, Any], dict[str, Any]]:
    """Pseudo-random state dicts in the layout of RoMa's and DINOv2's published files (1.7 GB)."""
    import torch
    from support.seeded_weights import digest, seeded_state_dict

    from romacli.networks.roma import RoMa, checkpoint_layouts

    with torch.device("meta"):
        layouts = checkpoint_layouts(RoMa())
    roma, dinov2 = (
        seeded_state_dict(layout, seed=SEED, group=group) for layout, group in zip(layouts, DIGESTS, strict=True)
    )
    assert {"roma": digest(roma), "dinov2": digest(dinov2)} == DIGESTS
    return roma, dinov2
