"""romacli: dense matching with RoMa for Structure-from-Motion, from photographs to a COLMAP model."""

from __future__ import annotations

__version__ = "0.1.0"
