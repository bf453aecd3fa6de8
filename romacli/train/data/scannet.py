"""ScanNet as prepared for LoFTR, DKM and RoMa: pair lists, frames with depth as PNG, poses as text."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from romacli.errors import InputError
from romacli.images.decode import read_image

from .photographs import first_line
from .posed import PosedView

LISTS = "scannet_indices"
SCENES = Path("scans/scans_train")
LEAST_OVERLAPS = (0.0,)
FRAME_STEP = 10  # only every tenth frame is extracted for training
UNITS_PER_METRE = 1000


@dataclass(frozen=True)
class ScanNetScene:
    """The frames of one scan that form pairs; views are numbered by frame.

    Attributes:
        folder: with color/N.jpg, depth/N.png, pose/N.txt and intrinsic/intrinsic_color.txt.
    """

    folder: Path
    pairs: NDArray[np.int64]
    overlaps: NDArray[np.float64]

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def intrinsics(self) -> NDArray[np.float64]:
        """(3, 3), of the colour images; also used for the depth maps, whose intrinsics are nearly the same."""
        return read_matrix(self.folder / "intrinsic" / "intrinsic_color.txt")[:3, :3]

    def view(self, number: int) -> PosedView:
        image, depth, pose, _ = self.files(number)
        return PosedView(
            read_image(image), read_depth(depth), self.intrinsics, np.linalg.inv(read_matrix(pose)).astype(np.float64)
        )

    def files(self, number: int) -> tuple[Path, Path, Path, Path]:
        return (
            self.folder / "color" / f"{number}.jpg",
            self.folder / "depth" / f"{number}.png",
            self.folder / "pose" / f"{number}.txt",
            self.folder / "intrinsic" / "intrinsic_color.txt",
        )


def scannet_scenes(root: Path) -> list[ScanNetScene]:
    """Return the scans in a ScanNet folder that have training pairs.

    Raises:
        InputError: there are none, or a pair list is damaged.
    """
    lists = sorted((root / LISTS).glob("*.npz"))
    if not lists:
        raise InputError(
            f"{root} has no lists of pairs {LISTS}/*.npz. Give --data-dir the folder prepared for DKM or RoMa."
        )
    names, overlaps = (np.concatenate(column) for column in zip(*map(read_pairs, lists), strict=True))
    extracted = (names[:, 2:] % FRAME_STEP == 0).all(axis=1)
    names, overlaps = names[extracted], overlaps[extracted]
    scans, scan_of = np.unique(names[:, :2], axis=0, return_inverse=True)
    return [
        ScanNetScene(root / SCENES / f"scene{scan:04d}_{part:02d}", names[scan_of == i, 2:], overlaps[scan_of == i])
        for i, (scan, part) in enumerate(scans)
    ]


def read_pairs(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read (n, 4) scan, part, frame and frame of each pair, and (n,) overlaps.

    Raises:
        InputError: the file is truncated, or not a pair list.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            names, overlaps = file["name"].astype(np.int64), file["score"].astype(np.float64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as a list of pairs: {first_line(error)}. Fetch it again.") from error
    if names.ndim != 2 or names.shape[1] != 4 or overlaps.shape != names.shape[:1]:
        raise InputError(f"{path} contains name {names.shape} and score {overlaps.shape}, expected (n, 4) and (n,).")
    return names, overlaps


def read_depth(path: Path) -> NDArray[np.float32]:
    """Read a depth map (H, W) in metres, 0 where unknown.

    Raises:
        InputError: the file is missing, truncated or not a 16-bit depth map.
    """
    data = path.read_bytes() if path.is_file() else b""
    depth = (
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data.endswith(b"IEND\xaeB`\x82") else None
    )
    if depth is None or depth.dtype != np.uint16 or depth.ndim != 2:
        raise InputError(f"{path} cannot be read as a 16-bit depth map. Extract it again.")
    return depth.astype(np.float32) / np.float32(UNITS_PER_METRE)


def read_matrix(path: Path) -> NDArray[np.float64]:
    """Read a finite (4, 4) matrix from a text file.

    Raises:
        InputError: the file is missing or contains none; ScanNet writes infinities where tracking was lost.
    """
    try:
        matrix = np.loadtxt(path, dtype=np.float64)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a matrix: {first_line(error)}. Extract it again.") from error
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError(f"{path} contains no finite 4 x 4 matrix. Remove its frame from the pair lists.")
    return matrix
