"""External keypoints: from a detector's file, or SIFT's on the photographs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from romacli.errors import EstimationError, InputError, UsageError
from romacli.images.decode import read_image
from romacli.job.masks import JobMasks
from romacli.job.outputs.origins import file_digest, noted_path
from romacli.keypoints.options import AggregateOptions
from romacli.keypoints.sift import detect_sift
from romacli.names import spelled
from romacli.progress import Progress
from romacli.stop import StopRequest
from romacli.store.hloc import FeaturesFile
from romacli.store.images import stamp_of
from romacli.store.layout import Layout
from romacli.types import Keypoints, Size

SIFT = "sift"
# A photograph's scale space takes some hundred MB.
_MOST_THREADS = 4


@dataclass(frozen=True)
class ExternalKeypoints:
    """The source of external keypoints.

    source: "sift", or an hloc features file. images: the folder of photographs, which SIFT needs.
    """

    source: str
    images: Path | None = None

    def check(self, names: Sequence[str], options: AggregateOptions, *, of_all: bool = False) -> None:
        """Check that the source has keypoints of the images (of all of them with `of_all`), or that SIFT can run.

        Raises:
            UsageError: the method makes its own keypoints, or SIFT lacks the photographs.
            InputError: the file does not exist, or lacks the images.
            StoreError: it is not a features file.
        """
        if options.method != AggregateOptions.method:
            raise UsageError(
                f"--keypoints uses existing keypoints, --method {options.method} makes its own. Leave one of them out."
            )
        if self.source == SIFT:
            if self.images is None:
                raise UsageError("--keypoints sift needs the photographs. Give their folder with --images DIR.")
            return
        with FeaturesFile(Path(self.source)) as file:
            held = spelled(names, file.names())
        missing = [name for name in names if name not in held]
        if missing and (of_all or not held):
            raise InputError(
                f"{self.source} has no keypoints of {len(missing)} of {len(names)} images, starting with "
                f"{missing[0]}. Its names must be those of the photographs, relative to their folder."
            )

    def noted(self, layout: Layout) -> str:
        """The source as recorded in a job."""
        return SIFT if self.source == SIFT else noted_path(layout, Path(self.source))

    def stamp(self, sizes: Mapping[str, Size]) -> Any:
        """What the keypoints depend on, as JSON values."""
        if self.source != SIFT:
            return file_digest(Path(self.source))
        return [SIFT, *(stamp_of(self._photograph(name)) for name in sorted(sizes))]

    def load(
        self,
        sizes: Mapping[str, Size],
        options: AggregateOptions,
        progress: Progress,
        stop: StopRequest,
        masks: JobMasks | None = None,
    ) -> dict[str, Keypoints]:
        """The keypoints of every image that has any, in COLMAP pixels. SIFT skips masked areas.

        Raises:
            InputError: an image's size differs between detection and matching.
        """
        if self.source == SIFT:
            return self._detect(sizes, options.max_keypoints, progress, stop, masks)
        with FeaturesFile(Path(self.source)) as file:
            held = spelled(sizes, file.names())
            for name, other in held.items():
                self._require_size(name, file.known_size(other) or sizes[name], sizes[name])
            if len(held) < len(sizes):
                lacking = sorted(sizes.keys() - held.keys())
                progress.say(
                    f"{self.source} lacks {len(lacking)} of {len(sizes)} images, starting with {lacking[0]}: "
                    "keypoints there are transferred from the other images, with new ones elsewhere"
                )
            return {name: file.keypoints(other, np.float64) for name, other in held.items()}

    def _detect(
        self,
        sizes: Mapping[str, Size],
        max_keypoints: int,
        progress: Progress,
        stop: StopRequest,
        masks: JobMasks | None,
    ) -> dict[str, Keypoints]:
        def detect(name: str) -> Keypoints:
            stop.check()
            image = read_image(self._photograph(name))
            self._require_size(name, (image.shape[1], image.shape[0]), sizes[name])
            try:
                return detect_sift(image, max_keypoints, masks.read(name) if masks else None)
            except EstimationError as error:
                progress.warn(f"{name} has no keypoints: {error}")
                return Keypoints(np.zeros((0, 2), np.float32), np.zeros(0, np.float32))

        progress.begin("detecting keypoints", len(sizes))
        found = {}
        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
            for name, keypoints in zip(sizes, pool.map(detect, sizes), strict=True):
                found[name] = keypoints
                progress.advance()
        return found

    def _photograph(self, name: str) -> Path:
        assert self.images is not None
        path = self.images / name
        if not path.is_file():
            raise InputError(f"{path} was matched but no longer exists. Restore it, or give its folder with --images.")
        return path

    def _require_size(self, name: str, size: Size, matched: Size) -> None:
        if size != matched:
            raise InputError(
                f"{name} is {size[0]}x{size[1]} px in {self.source} but {matched[0]}x{matched[1]} px in the job. "
                "Detect keypoints on the matched photographs at their original size."
            )
