"""MegaDepth as prepared for DKM and RoMa: scene lists, photographs, depth maps in HDF5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from romacli.errors import InputError
from romacli.images.decode import read_image
from romacli.store.pickled import DAMAGE, read_array

from .photographs import first_line
from .posed import PosedView

LISTS = "prep_scene_info"
LEAST_OVERLAPS = (0.01, 0.35)  # of RoMa's two mixtures
TEST_SCENES = {"0015", "0022"}
PHOTO_TOURISM_SCENES = {"0008", "0019", "0021", "0024", "0025", "0032", "0063", "1589"}  # tests of IMC 2021
# Excluded from LoFTR's training.
DOUBTFUL_SCENES = {
    "0121", "0133", "0168", "0178", "0229", "0349", "0412", "0430", "0443", "1001", "5014", "5015", "5016",
}  # fmt: skip
LEFT_OUT = TEST_SCENES | PHOTO_TOURISM_SCENES | DOUBTFUL_SCENES
KEYS = ("image_paths", "depth_paths", "intrinsics", "poses", "pairs", "overlaps")


@dataclass(frozen=True)
class MegaDepthScene:
    """A scene of MegaDepth; paths are relative to `root`, entries of images without depth are None."""

    root: Path
    name: str
    image_paths: Sequence[str | None]
    depth_paths: Sequence[str | None]
    intrinsics: Sequence[Any]
    poses: Sequence[Any]
    pairs: NDArray[np.int64]
    overlaps: NDArray[np.float64]

    def view(self, number: int) -> PosedView:
        image, depth = self.files(number)
        K = np.asarray(self.intrinsics[number], np.float64).reshape(3, 3)
        return PosedView(
            read_image(image), read_depth(depth), K, np.asarray(self.poses[number], np.float64).reshape(4, 4)
        )

    def files(self, number: int) -> tuple[Path, Path]:
        image, depth = self.image_paths[number], self.depth_paths[number]
        if image is None or depth is None:
            raise InputError(f"Scene {self.name} lists pairs of image {number}, but no file for it. Prepare it again.")
        return self.root / image, self.root / depth


def megadepth_scenes(root: Path) -> list[MegaDepthScene]:
    """Return the training scenes in a MegaDepth folder.

    Raises:
        InputError: there are none, or a scene list is damaged.
    """
    lists = sorted((root / LISTS).glob("*.npy"))
    if not lists:
        raise InputError(
            f"{root} has no scene lists {LISTS}/*.npy. Give --data-dir the folder prepared for DKM or RoMa."
        )
    scenes = [read_scene(root, path) for path in lists if path.stem not in LEFT_OUT]
    if not scenes:
        raise InputError(f"All {len(lists)} scenes in {root / LISTS} are reserved for tests. Add scenes to train on.")
    return scenes


def read_depth(path: Path) -> NDArray[np.float32]:
    """Read a depth map (H, W) in its scene's own scale, 0 where unknown.

    Raises:
        InputError: the file is missing, truncated or not a depth map.
    """
    try:
        with h5py.File(path, "r") as file:
            depth = np.asarray(file["depth"], np.float32)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a depth map: {first_line(error)}. Fetch it again.") from error
    if depth.ndim != 2:
        raise InputError(f"{path} contains depths of shape {depth.shape}, expected (H, W). Fetch it again.")
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def read_scene_list(path: Path) -> Mapping[str, Any]:
    """Read the dictionary in a scene list.

    NumPy stores it as a pickle, which can run arbitrary code when read: only arrays, numbers and text are accepted
    here.

    Raises:
        InputError: the file is truncated, not a scene list, or contains other types.
    """
    try:
        with path.open("rb") as file:
            found = read_array(file)
    except DAMAGE as error:
        raise InputError(f"{path} cannot be read as a scene list: {first_line(error)}. Prepare it again.") from error
    if isinstance(found, np.ndarray) and found.shape == ():
        found = found.item()
    if isinstance(found, np.ndarray) and not found.dtype.hasobject:
        raise InputError(f"{path} cannot be read as a scene list: it contains only numbers. Prepare it again.")
    if not isinstance(found, dict):
        raise InputError(f"{path} contains no dictionary, as a scene list does. Prepare it again.")
    return found


def read_scene(root: Path, path: Path) -> MegaDepthScene:
    """Read a scene from its list.

    Raises:
        InputError: the list is damaged.
    """
    found = read_scene_list(path)
    if missing := [key for key in KEYS if key not in found]:
        raise InputError(f"{path} lacks {', '.join(missing)}. Prepare it again.")
    columns = {key: found[key] for key in KEYS}
    pairs = np.asarray(columns.pop("pairs"), np.int64).reshape(-1, 2)
    overlaps = np.asarray(columns.pop("overlaps"), np.float64).reshape(-1)
    counts = {len(column) for column in columns.values()}
    if (
        len(counts) != 1
        or len(overlaps) != len(pairs)
        or (len(pairs) and not 0 <= pairs.min() <= pairs.max() < min(counts))
    ):
        raise InputError(f"{path} is inconsistent: its columns differ in length. Prepare it again.")
    return MegaDepthScene(root, path.stem, pairs=pairs, overlaps=overlaps, **columns)
