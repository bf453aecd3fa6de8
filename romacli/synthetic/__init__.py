"""Scenes with exact warps, noise and textures, for training, evaluation, tests and examples.

Planes, cameras and grey levels only; independent of networks.
"""

from __future__ import annotations

from .pairs import SyntheticPair, sample_pair
from .scenes import Camera, TexturedPlane, View, render_view, warp_between
from .textures import Textures

__all__ = [
    "Camera",
    "SyntheticPair",
    "TexturedPlane",
    "Textures",
    "View",
    "render_view",
    "sample_pair",
    "warp_between",
]
