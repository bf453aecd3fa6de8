"""Global descriptors in hloc's file layout: one vector per image name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from romacli.names import spelled

from .hloc import ReadFile, new_file

_KEY = "global_descriptor"
_STAMP = "stamp"


@dataclass(frozen=True)
class GlobalFeature:
    """The descriptor (D,) float32 of an image, and the stamp of the file it was computed from, if known."""

    descriptor: np.ndarray
    stamp: tuple[int, ...] | None = None


def write_global_features(
    path: Path, features: Mapping[str, GlobalFeature], *, provenance: Mapping[str, str], option: str = "--output"
) -> None:
    """Write descriptors by image name, atomically; option: the one that names the file.

    Raises:
        StoreError: the disk is full, or the folder cannot be written to.
    """
    with new_file(path, provenance, option) as add_group:
        for name, feature in features.items():
            group = add_group(name)
            group[_KEY] = feature.descriptor.astype(np.float32)
            if feature.stamp is not None:
                group.attrs[_STAMP] = np.array(feature.stamp, np.int64)


class GlobalFeaturesFile(ReadFile):
    """A global features file from romacli or hloc, open for reading.

    Raises:
        InputError: the file does not exist or may not be read.
        StoreError: it is damaged or foreign; also from the methods.
    """

    def read(self, names: list[str]) -> dict[str, GlobalFeature]:
        """The descriptors of the images in the file, regardless of Unicode normalisation."""
        found = {}
        meant = spelled(names, self.names())
        with self._reading("give its global descriptors"):
            for name in names:
                group = self._file.get(meant[name]) if name in meant else None
                if group is not None and _KEY in group:
                    stamp = group.attrs.get(_STAMP)
                    found[name] = GlobalFeature(
                        np.asarray(group[_KEY][()], np.float32).ravel(),
                        None if stamp is None else tuple(map(int, stamp)),
                    )
        return found
