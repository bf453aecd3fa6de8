"""A mini network small enough to train for a few steps in a test."""

from __future__ import annotations

from romacli.networks.mini_config import MiniConfig

TINY = MiniConfig(
    trunk_channels=(8, 16, 16, 32),
    trunk_blocks=(0, 0, 0, 0),
    fourier_channels=16,
    decoder_width=32,
    decoder_blocks=1,
    decoder_heads=2,
    context_blocks=1,
    crossings=1,
    exchanges=1,
    anchors_per_side=6,
    refiner_features=(8, 8, 8),
    refiner_descriptors=(8, 8, 0),
    refiner_radius=(1, 1, 0),
    refiner_width=(16, 16, 16),
    refiner_convolutions=(1, 1, 1),
)
