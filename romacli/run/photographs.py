"""The photographs of a job, and those that changed since they were matched."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from romacli.errors import ImageError, InputError, SettingsDifferError
from romacli.images.decode import is_stretched
from romacli.images.extras import remedy
from romacli.images.metadata import read_metadata, recall_metadata, written
from romacli.progress import Progress, Silent
from romacli.run.options import Changed
from romacli.store.images import READERS, KnownImage, Stamp, changed_in, known_sha256, sha256_of, stamp_of, write_images
from romacli.store.layout import Layout
from romacli.types import ImageList, LeftOut, Size
from romacli.words import counted, first_few


@dataclass(frozen=True)
class Photographs:
    """The files of a job as they are now and as recorded.

    stamps: size in bytes and modification time now, by name; inaccessible files have none.
    known: the recorded ones. changed: those that are no longer as recorded; copies with the same contents are.
    """

    stamps: Mapping[str, Stamp]
    known: Mapping[str, KnownImage]
    changed: Collection[str] = ()

    @property
    def unseen(self) -> set[str]:
        """Those that changed or are not recorded."""
        return {*self.changed, *(name for name in self.stamps if name not in self.known)}

    @property
    def unchanged(self) -> dict[str, KnownImage]:
        """The others that are recorded, with the stamps of copies."""
        found = {name: known for name, known in self.known.items() if name not in self.changed}
        for name, known in found.items():
            if name in self.stamps and self.stamps[name] not in known.stamps:
                found[name] = replace(known, stamps=(*known.stamps, self.stamps[name]))
        return found

    def accepted(self, policy: Changed) -> dict[str, KnownImage]:
        """The stamps accepted from now on: of what changed, `rematch` drops the recorded ones, `keep` accepts both."""
        accepted = {name: KnownImage((stamp,)) for name, stamp in self.stamps.items()}
        for name in self.changed if policy is Changed.keep else ():
            stamps = *self.known[name].stamps, self.stamps[name]
            accepted[name] = replace(self.known[name], stamps=stamps, header=None, sha256=None)
        return {**accepted, **self.unchanged}


def tell_left_out(files: LeftOut, progress: Progress) -> None:
    """Report which files of a folder are left out of a job that takes all photographs."""
    if files.pictures:
        progress.warn(f"{_left_out(files.pictures)}. {remedy(files.pictures)} to use them")
    if files.twins:
        progress.warn(
            f"{_left_out(files.twins)}: resized copies or masks of the photographs in a data set's folder `images`. "
            "Give that folder to match only these, and --mask-dir to use the masks"
        )
    if files.others:
        progress.say(f"{_left_out(files.others)}: not photographs, by their extensions")


def _left_out(names: Sequence[str]) -> str:
    return f"{counted(len(names), 'file is', 'files are')} left out, starting with {names[0]}"


def look_at(images: ImageList, known: Mapping[str, KnownImage]) -> Photographs:
    """The photographs of a list with their records; headers of unchanged ones are not read again."""
    stamps, listed = {}, {}
    for name in images.names:
        with suppress(OSError):
            stamps[name] = stamp_of(images.root / name)
        if name in known:
            listed[name] = known[name]
            header = known[name].header
            if header is not None and stamps.get(name) == known[name].stamps[-1]:
                recall_metadata(images.root / name, stamps[name], header)
    return Photographs(stamps, listed, frozenset(changed_in(images.root, stamps, listed)))


def note_photographs(
    layout: Layout, folder: Path | None, images: Mapping[str, KnownImage], progress: Progress
) -> dict[str, KnownImage]:
    """The photographs recorded in a job that this process holds, with what a folder now tells of them: times of copies,
    headers and hashes. It is noted for later runs."""
    if folder is None:
        return dict(images)
    found = look_at(ImageList(folder, tuple(images)), images)
    noted = with_contents(folder, {**images, **found.unchanged}, progress)
    if noted != images:
        write_images(layout.images, noted)
    return noted


def with_contents(root: Path, images: Mapping[str, KnownImage], progress: Progress) -> dict[str, KnownImage]:
    """The photographs with their headers and hashes, reading those not known already."""
    found = with_hashes(root, images)
    unread = [name for name, image in found.items() if image.sha256 is None or image.header is None]
    listener = progress if any(found[name].sha256 is None for name in unread) else Silent()
    listener.begin("reading photographs", len(unread))
    with ThreadPoolExecutor(READERS) as pool:
        read = pool.map(lambda name: _with_contents(root / name, found[name]), unread)
        for name, image in zip(unread, read, strict=True):
            found[name] = image
            listener.advance()
    return found


def with_hashes(root: Path, images: Mapping[str, KnownImage]) -> dict[str, KnownImage]:
    """The photographs with the hashes of those that this process has read."""
    return {
        name: replace(image, sha256=image.sha256 or known_sha256(root / name, image.stamps[-1]))
        for name, image in images.items()
    }


def _with_contents(path: Path, image: KnownImage) -> KnownImage:
    with suppress(OSError, ImageError):
        if stamp_of(path) == image.stamps[-1]:
            return replace(image, header=written(read_metadata(path)), sha256=image.sha256 or sha256_of(path))
    return image


def require_unchanged(photographs: Photographs, policy: Changed) -> None:
    """Check that no photograph has changed, unless --changed allows it.

    Raises:
        InputError: some have changed.
    """
    if photographs.changed and policy is Changed.refuse:
        raise InputError(
            f"{named_as_changed(photographs.changed)}. Add --changed rematch to match such pairs again, or --changed "
            "keep if they show the same."
        )


def named_as_changed(names: Collection[str]) -> str:
    return (
        f"{counted(len(names), 'photograph has', 'photographs have')} changed in size or modification time since "
        f"matching: {first_few(sorted(names))}"
    )


def require_size(path: Path, size: Size, *, matched: Size) -> None:
    """Check that a photograph's size (width, height) is the one it was matched at.

    Raises:
        InputError: it is not.
    """
    if size != matched:
        raise InputError(
            f"{path} is {size[0]}x{size[1]} px, but was {matched[0]}x{matched[1]} when it was matched. "
            "Restore the photograph, or match its pairs again with --changed rematch."
        )


def require_sizes(root: Path, names: Sequence[str], matched: Mapping[str, Size]) -> None:
    """The same for all matched names; unreadable files are ignored."""
    for name in names:
        if name in matched:
            with suppress(ImageError):
                require_size(root / name, read_metadata(root / name).size, matched=matched[name])


def require_stretched(job: Path, root: Path, names: Iterable[str]) -> None:
    """Check that no photograph matched by an older version has a narrow 16-bit range, which is now stretched.

    Raises:
        SettingsDifferError: one has, and was matched with few grey levels.
    """
    for name in names:
        with suppress(ImageError):
            if is_stretched(root / name):
                raise SettingsDifferError(
                    f"{job} was matched by a version that read only the high bytes of 16-bit photographs, which loses "
                    f"most of {name}. Use another --output, or --overwrite."
                )
