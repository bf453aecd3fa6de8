"""Keypoints and matches in hloc's HDF5 files.

Only this module handles their keys and the half pixel between COLMAP's frame, in memory, and hloc's, on disk.
Files use HDF5's default format and are always rewritten as a whole: files written in place are unreadable after a kill.
h5py is imported with the first file.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from romacli.disk import written_whole
from romacli.errors import BusyError, InputError, PairsError, StoreError
from romacli.geometry.coordinates import colmap_to_hloc, hloc_to_colmap
from romacli.types import Keypoints, Matches, Pair, Size, Uncertainty

if TYPE_CHECKING:
    from typing import Self

    import h5py
    from typing_extensions import Buffer

_READ_ERRORS = (
    *(OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError, MemoryError),
)
# Above the expansion ratio of HDF5's usual filters.
_MOST_EXPANSION = 1100
_SMALL_BYTES = 1 << 20
UNREAD: Size = (0, 0)


def pair_key(name0: str, name1: str) -> str:
    """The group name of a pair in a matches file, nested as in hloc since version 1.3."""
    return f"{_flat(name0)}/{_flat(name1)}"


def check_names(names: Iterable[str]) -> None:
    """Check that every name can have its own group in hloc's files.

    Raises:
        PairsError: a name is not a valid HDF5 path, is inside another name, or shares its key with another.
    """
    distinct = dict.fromkeys(names)
    by_key: dict[str, str] = {}
    for name in distinct:
        _check_path(name)
        other = by_key.setdefault(_flat(name), name)
        if other != name:
            raise PairsError(
                f"{other} and {name} have the same name in hloc files ({_flat(name)}). Rename one of them."
            )
        for folder in _parents(name):
            if folder in distinct:
                raise PairsError(f"{name} is inside {folder}, which is also an image. Rename one of them.")


def write_features(path: Path, items: Iterable[tuple[str, Keypoints, Size]], *, provenance: Mapping[str, str]) -> None:
    """Write the keypoints of all images, one group per image name, atomically.

    A group contains `keypoints` (K, 2) float32 in hloc pixels, `image_size` (width, height), and the scores under two
    names for one dataset: hloc's dense pipeline writes `score`, readers look for `scores`. Described keypoints have
    `descriptors` (D, K) float16, as in hloc's extractors. Refined keypoints also have the three datasets of
    `Uncertainty`, which hloc ignores. An unreadable photograph has no keypoints and the size `UNREAD`.

    Args:
        path: replaced if it exists.
        items: name, keypoints in COLMAP pixels, (width, height) of every image; the names must pass `check_names`.
        provenance: attributes of the file.

    Raises:
        StoreError: the disk is full, or the folder cannot be written to.
    """
    with new_file(path, provenance) as add_group:
        for name, keypoints, size in items:
            group = add_group(name)
            group["keypoints"] = colmap_to_hloc(keypoints.xy).astype(np.float32)
            group["scores"] = keypoints.scores.astype(np.float32)
            group["score"] = group["scores"]
            group["image_size"] = np.array(size, np.int64)
            if keypoints.descriptors is not None:
                group["descriptors"] = keypoints.descriptors.T.astype(np.float16)
            if keypoints.uncertainty is not None:
                for key, values in vars(keypoints.uncertainty).items():
                    group[key] = values.astype(np.float32)


def write_matches(path: Path, items: Iterable[tuple[Pair, Matches, int]], *, provenance: Mapping[str, str]) -> None:
    """Write the matches of all pairs, one group per pair, atomically.

    A group contains `matches0` (K0,) int32, for every keypoint of the first image the row in the second or -1,
    and `matching_scores0` (K0,) float16. hloc's own int16 is limited to 32767 keypoints. A pair without matches also
    has a group, since hloc expects every listed pair; its values are HDF5's fill values, which take no space.

    Args:
        path: replaced if it exists.
        items: pair, matches, number K0 of keypoints in the first image; the names must pass `check_names`.
        provenance: attributes of the file.

    Raises:
        StoreError: the disk is full, or the folder cannot be written to.
        ValueError: a keypoint of the first image is matched twice, which the format cannot represent.
    """
    with new_file(path, provenance) as add_group:
        for pair, matches, num_keypoints0 in items:
            rows = matches.indices[:, 0]
            if len(np.unique(rows)) < len(rows):
                raise ValueError(f"a keypoint of {pair[0]} has two matches in {pair[1]}")
            group = add_group(pair_key(*pair))
            # Maximum accepted size of datasets without values on disk.
            if not len(rows) and 4 * num_keypoints0 <= _SMALL_BYTES:
                group.create_dataset("matches0", (num_keypoints0,), np.int32, fillvalue=-1)
                group.create_dataset("matching_scores0", (num_keypoints0,), np.float16)
                continue
            matches0 = np.full(num_keypoints0, -1, np.int32)
            matches0[rows] = matches.indices[:, 1]
            scores0 = np.zeros(num_keypoints0, np.float16)
            scores0[rows] = matches.scores
            group["matches0"] = matches0
            group["matching_scores0"] = scores0


def require_finished(path: Path, error: Exception) -> None:
    """Check that a file that HDF5 cannot read is not in use, and is therefore damaged.

    Raises:
        BusyError: another program has it open for writing.
        StoreError: a program that was killed left it marked as open.
    """
    if _is_locked(path):
        raise BusyError(f"{path} is open for writing in another program. Wait until it is closed.") from error
    if "h5clear" in str(error):
        raise StoreError(
            f"{path} is marked as open for writing, but no program has it open: its writer was killed. Unless another "
            f"machine is still writing, clear the mark with HDF5's `h5clear -s {path}`."
        ) from error


def _is_locked(path: Path) -> bool:
    """Whether a program on this machine holds HDF5's write lock."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
    return False


class ReadFile:
    """An HDF5 file open for reading, for use in a with statement."""

    def __init__(self, path: Path) -> None:
        import h5py

        try:
            path.open("rb").close()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}. Give an HDF5 file in hloc's layout.") from error
        self.path = path
        # romacli's files never change after the rename, and locks fail on some network file systems.
        with self._reading("be opened as HDF5"):
            self._file = h5py.File(path, "r", locking=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; may be called again."""
        self._file.close()

    def provenance(self) -> dict[str, str]:
        """The string attributes of the file, as written by `new_file`."""
        with self._reading("give its attributes"):
            attributes = self._file.attrs
            return {key: attributes[key].decode() for key in attributes if _is_text(attributes.get_id(key))}

    def names(self) -> list[str]:
        """The names of all groups that contain datasets, sorted."""
        import h5py

        names = set()

        def visit(name: str, member: h5py.Group | h5py.Dataset) -> None:
            if isinstance(member, h5py.Dataset):
                names.add(name.rpartition("/")[0])

        with self._reading("be listed"):
            self._file.visititems(visit)
        return sorted(names)

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Turn errors of h5py and numpy on damaged or foreign files into one sentence."""
        try:
            # numpy would warn about damaged numbers, which are checked anyway.
            with np.errstate(all="ignore"):
                yield
        except _READ_ERRORS as error:
            require_finished(self.path, error)
            raise StoreError(
                f"{self.path} cannot {what}; it is damaged or was not written for hloc. Write it again."
            ) from error


def _is_text(attribute: h5py.h5a.AttrID) -> bool:
    """Whether an attribute is a short string of fixed length, as romacli writes them.

    In damaged files HDF5 may hang on others: strings of variable length are in a heap that it traverses.
    """
    import h5py

    kind, is_scalar = attribute.get_type(), attribute.get_space().get_simple_extent_type() == h5py.h5s.SCALAR
    is_text = is_scalar and isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()
    return is_text and attribute.get_storage_size() < _SMALL_BYTES


class FeaturesFile(ReadFile):
    """A features file from romacli or hloc, open for reading.

    Raises:
        InputError: the file does not exist or may not be read.
        StoreError: it is damaged or foreign; also from the methods.
    """

    def keypoints(self, name: str, dtype: type[np.floating] = np.float32) -> Keypoints:
        """The keypoints of an image, in COLMAP pixels; scores are 1 if the file has none.

        dtype: of the positions; float64 preserves a file's float32 values exactly when written again.
        """
        group = self._group(name)
        with self._reading(f"give the keypoints of {name}"):
            xy = hloc_to_colmap(_array(group["keypoints"]).astype(dtype))
            if not np.isfinite(xy).all():
                raise ValueError("a keypoint is not finite")
            scores = next((_array(group[key]) for key in ("scores", "score") if key in group), np.ones(len(xy)))
            return Keypoints(xy, scores.astype(np.float32))

    def uncertainty(self, name: str) -> Uncertainty | None:
        """The uncertainty of an image's keypoints; None if they were not refined."""
        group = self._group(name)
        with self._reading(f"give the uncertainty of the keypoints of {name}"):
            names = [field.name for field in fields(Uncertainty)]
            if not all(key in group for key in names):
                return None
            uncertainty = Uncertainty(*(_array(group[key]).astype(np.float32) for key in names))
            if not all(np.isfinite(values).all() for values in vars(uncertainty).values()):
                raise ValueError("a covariance is not a number")
            return uncertainty

    def descriptors(self, name: str) -> np.ndarray:
        """The descriptors (K, D) float32 of an image's keypoints."""
        group = self._group(name)
        with self._reading(f"give the descriptors of {name}"):
            descriptors = np.ascontiguousarray(_array(group["descriptors"]).T.astype(np.float32))
            if not np.isfinite(descriptors).all():
                raise ValueError("a descriptor is not a number")
            return descriptors

    def image_size(self, name: str) -> Size:
        """The (width, height) of an image in px."""
        group = self._group(name)
        with self._reading(f"give the size of {name}"):
            width, height = (int(value) for value in _array(group["image_size"]))
            return width, height

    def known_size(self, name: str) -> Size | None:
        """The (width, height) of an image in px; None if the file lacks it, as some detectors' do."""
        return self.image_size(name) if "image_size" in self._group(name) else None

    def _group(self, name: str) -> h5py.Group:
        with self._reading(f"be searched for {name}"):
            group = self._file.get(name)
        if group is None:
            raise StoreError(f"{self.path} contains no keypoints of {name}.")
        return group


class MatchesFile(ReadFile):
    """A matches file from romacli or hloc, including older versions, open for reading.

    Raises:
        InputError: the file does not exist or may not be read.
        StoreError: it is damaged or foreign; also from the methods.
    """

    def __contains__(self, pair: Pair) -> bool:
        return self._find(*pair) is not None

    def pairs(self, names: Iterable[str]) -> list[Pair]:
        """All pairs in the file among images with these names, in the order of their keys.

        Raises:
            StoreError: the file contains a pair of other images, or is from hloc before 1.3, whose keys are ambiguous.
        """
        by_key = {_flat(name): name for name in names}
        with self._reading("give its pairs as pairs of the images in the features file"):
            return [(by_key[key0], by_key[key1]) for key0, group in self._file.items() for key1 in group]

    def matches(self, name0: str, name1: str) -> Matches:
        """The matches of a pair in either order, column 0 for the keypoints of `name0`."""
        found = self._find(name0, name1)
        if found is None:
            raise StoreError(f"{self.path} contains no matches of {name0} {name1}.")
        key, is_reversed = found
        with self._reading(f"give the matches of {name0} {name1}"):
            matches0 = _array(self._file[key]["matches0"]).astype(np.int32)
            scores0 = _array(self._file[key]["matching_scores0"]).astype(np.float32)
            if matches0.min(initial=0) < -1:
                raise ValueError("indices wrapped around in 16 bits")
            rows = np.flatnonzero(matches0 != -1)
            indices = np.stack([rows, matches0[rows]], axis=1).astype(np.int32)
            return Matches(indices[:, ::-1] if is_reversed else indices, scores0[rows])

    def _find(self, name0: str, name1: str) -> tuple[str, bool] | None:
        """The key of a pair and whether it is stored reversed, in hloc's search order."""
        forward, backward = pair_key(name0, name1), pair_key(name1, name0)
        with self._reading(f"be searched for {name0} {name1}"):
            for key, is_reversed in (
                (forward, False),
                (backward, True),
                (forward.replace("/", "_"), False),
                (backward.replace("/", "_"), True),
            ):
                if key in self._file:
                    return key, is_reversed
        return None


def unread_images(path: Path) -> frozenset[str]:
    """The images of a features file whose photographs could not be read when it was made; none if it is unreadable."""
    with suppress(InputError, StoreError), FeaturesFile(path) as features:
        return frozenset(name for name in features.names() if features.image_size(name) == UNREAD)
    return frozenset()


def read_provenance(path: Path) -> dict[str, str] | None:
    """The attributes of a file from romacli; None if the file cannot be opened."""
    try:
        with ReadFile(path) as file:
            return file.provenance()
    except (InputError, StoreError):
        return None


@contextmanager
def new_file(
    path: Path, provenance: Mapping[str, str], option: str = "--output"
) -> Iterator[Callable[[str], h5py.Group]]:
    """Yield a function that adds groups to a new file, which replaces `path` if the block succeeds.

    option: the one to change, by the message, if it cannot be written.
    """
    import h5py

    with written_whole(path, option) as temporary, _PatientFile(temporary, "w+") as target:
        with h5py.File(target, "w") as file:
            file.attrs.update({key: np.bytes_(value.encode()) for key, value in provenance.items()})

            def add_group(key: str) -> h5py.Group:
                target.check()
                return file.create_group(key)

            yield add_group
        target.check()


class _PatientFile(FileIO):
    """A file whose writes never appear to fail; `check` raises the first error or interruption.

    HDF5 aborts the whole process if it cannot flush on a full disk, so errors are hidden from it.
    """

    _error: BaseException | None = None

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def write(self, data: Buffer) -> int:
        remaining = memoryview(data)
        length = remaining.nbytes
        try:
            while remaining:
                remaining = remaining[super().write(remaining) :]
        except BaseException as error:
            self._error = self._error or error
        return length

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except BaseException as error:
            self._error = self._error or error
            return size or 0


def _array(dataset: h5py.Dataset) -> np.ndarray:
    """The values of a dataset, unless it claims to be much larger than its data in the file.

    Raises:
        ValueError: it does.
    """
    if dataset.size * dataset.dtype.itemsize > _SMALL_BYTES + _MOST_EXPANSION * dataset.id.get_storage_size():
        raise ValueError(f"{dataset.name} claims {dataset.size} values")
    values: np.ndarray = dataset[()]
    return values


def _flat(name: str) -> str:
    return name.replace("/", "-")


def _parents(name: str) -> Iterator[str]:
    """The folders of a name: "a" and "a/b" for "a/b/c"."""
    for index, letter in enumerate(name):
        if letter == "/":
            yield name[:index]


def _check_path(name: str) -> None:
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise PairsError(
            f"{name!r} cannot be a name in hloc files. "
            "Give names relative to the image folder, without empty, '.' or '..' parts."
        )
    if not name.isascii() and name != name.encode("utf-8", "replace").decode():
        raise PairsError(f"{name!r} cannot be a name in hloc files: it is not UTF-8. Rename it.")
