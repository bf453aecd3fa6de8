"""Image pairs chosen by names, positions, poses or descriptors: pure functions behind the sources in `pairing`."""

from __future__ import annotations

from .covisible import clusters, covisible
from .exhaustive import exhaustive
from .listfile import ReadPairs, format_pairs, read_pairs, write_pairs
from .merge import MergedPairs, merge
from .poses import Frustum, overlapping_views, posed
from .positions import read_positions
from .retrieval import PartnerOptions, RetrievalOptions, retrieve
from .sequential import sequential
from .spatial import spatial

__all__ = [
    "Frustum",
    "MergedPairs",
    "PartnerOptions",
    "ReadPairs",
    "RetrievalOptions",
    "clusters",
    "covisible",
    "exhaustive",
    "format_pairs",
    "overlapping_views",
    "merge",
    "posed",
    "read_pairs",
    "read_positions",
    "retrieve",
    "sequential",
    "spatial",
    "write_pairs",
]
