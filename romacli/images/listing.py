"""List the photographs of a folder in natural order, without opening them."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from romacli.disk import read_lines
from romacli.errors import InputError
from romacli.names import spelled, with_guess
from romacli.types import ImageList, LeftOut
from romacli.words import first_few

from .extras import HEIC, RAW, installed_extensions, remedy

EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"),
    *(".jfif", ".jpe", ".mpo", ".jp2", ".j2k", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".pam", ".dib", ".ras", ".sr"),
)

# Image formats that cannot be read, or only with an extra.
_OTHER_EXTENSIONS = (
    *(".avif", ".jxl", ".exr", ".hdr", ".pfm", ".tga", ".psd", ".jpx", ".jps", ".srw", ".nrw", ".x3f", ".3fr", ".iiq"),
    *HEIC.extensions,
    *RAW.extensions,
)

# Folders next to `images` in which data sets keep downscaled copies, and masks.
_COPIES, _MASKS = re.compile(r"images_[0-9]+"), re.compile("masks?", re.IGNORECASE)


def list_images(root: str | Path, *, names_file: str | Path | None = None) -> ImageList:
    """List the photographs under a folder, or those named in a file.

    Names are POSIX, relative to `root`, in natural order (img2 before img10). Hidden files and folders are
    left out, as are the copies and masks of data sets, see `LeftOut`; links to folders are followed, except back into
    an enclosing folder.

    Args:
        root: the folder of photographs.
        names_file: a UTF-8 text file, one name relative to `root` per line; blank lines and lines starting
            with # are skipped. Files named here are used regardless of their extension; names are compared regardless
            of Unicode normalisation.

    Raises:
        InputError: the folder or file is missing or cannot be read, contains no photographs, or contains names that
            pair lists cannot represent.
    """
    root = Path(root)
    _require_folder(root)
    if names_file is None:
        names, left_out = _photographs_under(root)
    else:
        names, left_out = sorted(_photographs_named(root, Path(names_file)), key=_natural_key), LeftOut()
    for name in names:
        _require_portable(root, name)
    return ImageList(root, tuple(names), left_out)


def files_under(folder: Path) -> list[str]:
    """List all files under a folder that are not hidden, relative to it, in no particular order.

    Raises:
        InputError: the folder is missing or cannot be read.
    """
    _require_folder(folder)
    return list(_walk(folder))


def _photographs_under(root: Path) -> tuple[list[str], LeftOut]:
    """The photographs and the other files under a folder, both in natural order."""
    files = sorted(_walk(root), key=_natural_key)
    extensions = EXTENSIONS + installed_extensions()
    photographs = _with_extension(files, extensions)
    if photographs:
        copies = _twins(photographs)
        pictures = _with_extension(files, tuple(end for end in _OTHER_EXTENSIONS if end not in extensions))
        known = {*photographs, *pictures}
        twins = tuple(name for name in photographs if name in copies)
        others = tuple(name for name in files if name not in known)
        return [name for name in photographs if name not in copies], LeftOut(tuple(pictures), twins, others)
    wanted = " ".join(extensions)
    if not files:
        raise InputError(f"{root} is empty. Give the folder that contains the photographs ({wanted}).")
    raise InputError(
        f"{root} contains no photographs: none of its files ({len(files)}, such as {ascii(min(files))}) ends in "
        f"{wanted}. {remedy(files)}, or give another folder."
    )


def _twins(names: Iterable[str]) -> set[str]:
    """The names that are copies or masks of files in `images`: copies by stem, masks by name or stem."""
    paths = [PurePosixPath(name) for name in names]
    stems = {path.with_suffix("") for path in paths}
    known = stems.union(paths)
    found = set()
    for path in paths:
        for index, folder in enumerate(path.parts[:-1]):
            twin = PurePosixPath(*path.parts[:index], "images", *path.parts[index + 1 :]).with_suffix("")
            if (_COPIES.fullmatch(folder) and twin in stems) or (_MASKS.fullmatch(folder) and twin in known):
                found.add(path.as_posix())
    return found


def _photographs_named(root: Path, names_file: Path) -> list[str]:
    lines = read_lines(names_file, "a text file of names")
    names = dict.fromkeys(PurePosixPath(line).as_posix() for _, line in lines)
    if not names:
        raise InputError(f"{names_file} contains no names. Write one name relative to {root} on each line.")
    missing = [name for name in names if not is_file_inside(root, name)]
    if missing:
        files = list(_walk(root))
        meant = spelled(missing, files)
        names = dict.fromkeys(meant.get(name, name) for name in names)
        missing = [with_guess(name, files) for name in missing if name not in meant]
    if missing:
        count = "a file that is" if len(missing) == 1 else f"{len(missing)} files that are"
        raise InputError(
            f"{names_file} names {count} not in {root}: {first_few(missing)}. "
            f"Names are relative to {root}; correct them, or leave them out."
        )
    return list(names)


def is_file_inside(root: Path, name: str) -> bool:
    """Whether a relative name refers to a file inside a folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and os.path.isfile(root / name)


def _require_folder(root: Path) -> None:
    try:
        mode = root.stat().st_mode
    except OSError as error:
        raise InputError(
            f"{root} cannot be opened: {error.strerror}. Give the folder that contains the photographs."
        ) from error
    if not stat.S_ISDIR(mode):
        raise InputError(f"{root} is a file, not a folder. Give the folder that contains the photographs.")


def _require_portable(root: Path, name: str) -> None:
    """Refuse names that pair lists, COLMAP or HDF5 cannot represent."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        mend = (
            "Rename it" if sys.getfilesystemencoding() == "utf-8" else "Set PYTHONUTF8=1, as this locale is not UTF-8"
        )
        raise InputError(f"{root} contains {ascii(name)}, a name that is not valid UTF-8. {mend}.") from error
    if re.search(r"[\x00-\x1f\x7f]", name):
        raise InputError(
            f"{root} contains {ascii(name)}, a name with a tab, line break or other control character, "
            "which pair lists cannot represent. Rename it."
        )
    if name.lstrip().startswith("#"):
        raise InputError(f"{root} contains {name}; in a pair list a leading # starts a comment. Rename it.")


def _with_extension(names: Iterable[str], extensions: tuple[str, ...]) -> list[str]:
    return [name for name in names if name.lower().endswith(extensions)]


def _walk(folder: Path, prefix: str = "", ancestors: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Yield the names of all files under a folder that are not hidden, in no particular order."""
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in ancestors:
        return
    for entry in _entries(folder):
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", ancestors | {identity})
        else:
            yield prefix + entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be listed: {error.strerror}. Change its permissions, or move it elsewhere."
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # os.path.isdir treats broken and circular links as files: reading them will report it.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _natural_key(name: str) -> tuple[tuple[tuple[str | int, ...], str], ...]:
    """Natural order, folder by folder; ties such as 1, 01 and 001 are broken by the plain spelling."""
    return tuple((_digits_as_numbers(part), part) for part in name.split("/"))


def _digits_as_numbers(text: str) -> tuple[str | int, ...]:
    pieces = re.split(r"([0-9]+)", text.casefold())
    return tuple(int(piece) if index % 2 else piece for index, piece in enumerate(pieces))
