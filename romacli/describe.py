"""Write keypoints and descriptors of photographs in hloc's layout, for hloc and for later jobs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from romacli import __version__
from romacli.errors import RomacliError
from romacli.geometry.turns import turn_points_back, turn_size
from romacli.images.upright import read_upright
from romacli.matchers.describers.sparse import SparseMatcher
from romacli.progress import Progress
from romacli.run.stream import Prefetched
from romacli.stop import StopRequest
from romacli.store.hloc import check_names, write_features
from romacli.types import Features, ImageList, Keypoints, PreparedImage, Size


@dataclass
class Described:
    """The result. failures: one error per photograph that could not be described."""

    images: int = 0
    keypoints: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def describe_images(
    images: ImageList, matcher: SparseMatcher, path: Path, progress: Progress, stop: StopRequest, *, num_workers: int
) -> Described:
    """Describe every photograph and write the file atomically.

    Raises:
        PairsError: a name cannot be a group in hloc's files.
        StoreError: the file cannot be written.
    """
    check_names(images.names)
    summary = Described()
    turned: dict[str, int] = {}

    def prepare(name: str) -> PreparedImage:
        image, turned[name] = read_upright(images.root / name)
        return matcher.prepare_named(name, image, turned[name])

    def items() -> Iterator[tuple[str, Keypoints, Size]]:
        with Prefetched(images.names, prepare, workers=num_workers, ahead=2 * num_workers) as prepared:
            for name in images.names:
                stop.check()
                each = prepared.take(name)
                progress.advance()
                try:
                    if isinstance(each, RomacliError):
                        raise each
                    features = matcher.encode([each])[0]
                except RomacliError as error:
                    summary.failures[name] = f"{name}: {error}" if name not in str(error) else str(error)
                    progress.warn(summary.failures[name])
                    continue
                found, size = _stored(features, turned[name])
                summary.images, summary.keypoints = summary.images + 1, summary.keypoints + len(found)
                yield name, found, size

    progress.begin("describing", len(images))
    write_features(path, items(), provenance={"romacli": __version__, "described_by": matcher.described_by})
    return summary


def _stored(features: Features, turns: int) -> tuple[Keypoints, Size]:
    """Keypoints with descriptors in the frame of the photograph as stored, and its size there."""
    size = turn_size(features.size, turns)
    xy, scores, descriptors = (
        features.tensors[name][0].cpu().numpy() for name in ("keypoints", "scores", "descriptors")
    )
    places = turn_points_back(xy, size, turns).astype(np.float32)
    return Keypoints(places, scores.astype(np.float32), descriptors=descriptors), size
