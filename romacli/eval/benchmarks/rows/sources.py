"""Sources of data and figures."""

from __future__ import annotations

STORAGE = "https://github.com/Parskatt/storage/releases"
REDI = "table of the REDI-Match paper, all at 576x576"
QUOTED = "(quoted by others)"
