"""Masks of photographs: black (0 in every channel) and transparent pixels are ignored, all others are used.

Stored values are compared without scaling, so 1 of 16 bits is not black.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from romacli.errors import ImageError, InputError
from romacli.names import composed, spelled
from romacli.types import ImageList, Size

from .decode import image_size, is_cut_off, read_samples
from .jpeg import cut_off
from .listing import EXTENSIONS, files_under
from .options import MaskOptions

_MASK_EXTENSION = ".png"


@dataclass(frozen=True)
class Masks:
    """The mask files of photographs, by name; photographs without one are used whole."""

    files: Mapping[str, tuple[Path, ...]]

    def require_sizes(self, sizes: Mapping[str, Size]) -> None:
        """Check that every mask has the size of its photograph, by its header, and is not cut off.

        Args:
            sizes: (width, height) of photographs by name; masks of other names are ignored.

        Raises:
            InputError: a mask has another size, or cannot be read.
        """
        mask_sizes: dict[Path, Size] = {}
        for name, size in sizes.items():
            for path in self.files.get(name, ()):
                if path not in mask_sizes:
                    mask_sizes[path] = _size_of(path)
                if (mask := mask_sizes[path]) != size:
                    raise InputError(
                        f"the mask {path} is {mask[0]}x{mask[1]} px and {name} is {size[0]}x{size[1]} px. Give a mask "
                        "of the photograph's size, in its stored orientation."
                    )

    def read(self, name: str) -> np.ndarray | None:
        """The used pixels of a photograph, (H, W) bool, or None if all are."""
        kept = [_kept(read_samples(path)) for path in self.files.get(name, ())]
        return np.logical_and.reduce(kept) if kept else None


def _size_of(path: Path) -> Size:
    try:
        size = image_size(path)
    except ImageError as error:
        raise InputError(
            f"the mask {path} cannot be read. Save it as PNG again, or take it out of its folder."
        ) from error
    if is_cut_off(path):
        raise cut_off(path)
    return size


def find_masks(root: Path | None, names: Sequence[str], options: MaskOptions) -> Masks:
    """Find the masks of photographs: of `a/1.jpg`, `a/1.jpg.png` (COLMAP's rule) or else `a/1.png` in the folder.

    Args:
        root: the folder of photographs, whose masks may exceed `names`; None if unknown, then other masks are ignored.

    Raises:
        InputError: the folder or file does not exist, contains a mask without a photograph, or no mask of any
            photograph.
    """
    by_name: dict[str, tuple[Path, ...]] = {}
    if options.mask_dir is not None:
        by_name = {name: (path,) for name, path in _masks_in(options.mask_dir, root, names).items()}
    if options.camera_mask is not None:
        if not options.camera_mask.is_file():
            raise InputError(
                f"{options.camera_mask} is not a file. Give --camera-mask one image, black where pixels are ignored."
            )
        by_name = {name: (*by_name.get(name, ()), options.camera_mask) for name in names}
    return Masks(by_name)


def without_masks(images: ImageList, options: MaskOptions) -> ImageList:
    """The photographs of a list without masks stored among them."""
    is_mask = {
        name
        for name in images.names
        if (options.mask_dir is not None and options.mask_dir.resolve() in (images.root / name).resolve().parents)
        or (options.camera_mask is not None and (images.root / name).resolve() == options.camera_mask.resolve())
    }
    return replace(images, names=tuple(name for name in images.names if name not in is_mask)) if is_mask else images


def kept_cells(kept: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Mask of the cells in a (gh, gw) grid over an image that contain no black pixel, (gh, gw) bool.

    Args:
        kept: (H, W) bool, False where the mask is black.
    """
    black = np.zeros((kept.shape[0] + 1, kept.shape[1] + 1), np.int32)
    np.cumsum(np.cumsum(~kept, axis=0, dtype=np.int32), axis=1, out=black[1:, 1:])
    (top, bottom), (left, right) = (_pixel_ranges(*sides) for sides in zip(kept.shape, shape, strict=True))
    counts = black[bottom][:, right] - black[top][:, right] - black[bottom][:, left] + black[top][:, left]
    return counts == 0


def _kept(samples: np.ndarray) -> np.ndarray:
    """The used pixels, (H, W) bool, from the samples of a mask: grey, or colour with optional alpha."""
    if samples.ndim == 2:
        return samples != 0
    kept = (samples[..., :3] != 0).any(axis=2)
    if samples.shape[2] == 4:
        kept &= samples[..., 3] != 0
    return kept


def _pixel_ranges(pixels: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """The first pixel of each cell of a row, and one past its last."""
    borders = np.arange(cells + 1) * pixels
    return borders[:-1] // cells, -(-borders[1:] // cells)


def _masks_in(folder: Path, root: Path | None, names: Sequence[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Give --mask-dir the folder of the masks.")
    files = files_under(folder)
    if root is not None and folder.resolve() == root.resolve():
        raise InputError(f"{folder} contains the photographs themselves. Give --mask-dir a separate folder of masks.")
    _require_png(folder, files)
    masks = {name[: -len(_MASK_EXTENSION)]: name for name in files if name.lower().endswith(_MASK_EXTENSION)}
    whole, bare = spelled(names, masks), spelled(map(_without_extension, names), masks)
    found = {name: key for name in names if (key := whole.get(name) or bare.get(_without_extension(name)))}
    unused = masks.keys() - set(found.values())
    if root is not None and unused:
        files = files_under(root)
        photographs = set(map(composed, (*files, *map(_without_extension, files))))
        orphans = [masks[key] for key in unused if composed(key) not in photographs]
        _refuse_orphans(folder, orphans, root)
    if not found:
        raise InputError(
            f"{folder} contains no mask of the {len(names)} photographs. That of {names[0]} is {names[0]}.png or "
            f"{_without_extension(names[0])}.png, black where pixels are ignored."
        )
    return {name: folder / masks[key] for name, key in found.items()}


def _refuse_orphans(folder: Path, orphans: Sequence[str], root: Path) -> None:
    if orphans:
        first, others = min(orphans), f" (and {len(orphans) - 1} more)" if len(orphans) > 1 else ""
        inside = root / "images"  # of a data set whose root was given
        advice = f"Give {inside} for the photographs" if inside.is_dir() else "Rename or remove the mask"
        raise InputError(
            f"{folder / first} is the mask of no photograph{others}: {root} contains no "
            f"{first[: -len(_MASK_EXTENSION)]}, with any extension. {advice}."
        )


def _without_extension(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _require_png(folder: Path, files: Sequence[str]) -> None:
    others = [name for name in files if name.lower().endswith(EXTENSIONS) and not name.lower().endswith(".png")]
    if others:
        raise InputError(
            f"{folder / min(others)} is not PNG, and lossy formats do not preserve black. Save the masks as PNG."
        )
