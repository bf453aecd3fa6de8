"""Which files of a folder a job takes, and which of its photographs are still those that were matched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from romacli.errors import ImageError, InputError, SettingsDifferError
from romacli.images.decode import is_stretched
from romacli.images.extras import remedy
from romacli.images.metadata import read_metadata, recall_metadata, written
from romacli.progress import Progress
from romacli.run.options import Changed
from romacli.store.images import KnownImage, Stamp
from romacli.types import ImageList, LeftOut, Size
from romacli.words import counted


@dataclass(frozen=True)
class Photographs:
    """The files of a job as they are and as they were.

    stamps: bytes and modification time now, by name; a file that cannot be looked at has none.
    known: what was known of them before.
    """

    stamps: Mapping[str, Stamp]
    known: Mapping[str, KnownImage]

    @property
    def changed(self) -> list[str]:
        """Those that are not as they were."""
        return [name for name in self.stamps if name in self.known and self.stamps[name] not in self.known[name].stamps]

    @property
    def unseen(self) -> set[str]:
        """Those that are not known to be as they were."""
        return {*self.changed, *(name for name in self.stamps if name not in self.known)}

    def accepted(self, policy: Changed) -> dict[str, KnownImage]:
        """What they may be from now on. To `rematch` is to forget what they were, to `keep` to take both for one."""
        accepted = {name: KnownImage((stamp,)) for name, stamp in self.stamps.items()}
        for name, known in self.known.items():
            if name not in self.stamps or self.stamps[name] in known.stamps:
                accepted[name] = known
            elif policy is Changed.keep:
                accepted[name] = replace(known, stamps=(*known.stamps, self.stamps[name]), header=None)
        return accepted


def tell_left_out(files: LeftOut, progress: Progress) -> None:
    """Say which files of a folder count as no photographs of a job that takes them all."""
    if files.pictures:
        progress.warn(f"{_left_out(files.pictures)}. {remedy(files.pictures)} to use them")
    if files.twins:
        progress.warn(
            f"{_left_out(files.twins)}: a data set's copies in other sizes, or masks, of what its folder images holds. "
            "Give that folder for the photographs alone, and --mask-dir to use the masks"
        )
    if files.others:
        progress.say(f"{_left_out(files.others)}: no photographs by their extensions")


def _left_out(names: Sequence[str]) -> str:
    return f"{counted(len(names), 'file is', 'files are')} left out, {names[0]} first"


def look_at(images: ImageList, known: Mapping[str, KnownImage]) -> Photographs:
    """The photographs of a list beside what was known of them; the headers of those unchanged are known from now on."""
    stamps, listed = {}, {}
    for name in images.names:
        with suppress(OSError):
            state = (images.root / name).stat()
            stamps[name] = (state.st_size, state.st_mtime_ns)
        if name in known:
            listed[name] = known[name]
            header = known[name].header
            if header is not None and stamps.get(name) == known[name].stamps[-1]:
                recall_metadata(images.root / name, stamps[name], header)
    return Photographs(stamps, listed)


def with_headers(root: Path, images: Mapping[str, KnownImage]) -> dict[str, KnownImage]:
    """The photographs with what their files say of themselves, each opened unless that is known already."""
    found = dict(images)
    for name, image in images.items():
        with suppress(OSError, ImageError):
            state = (root / name).stat()
            if (state.st_size, state.st_mtime_ns) == image.stamps[-1]:
                found[name] = replace(image, header=written(read_metadata(root / name)))
    return found


def require_unchanged(photographs: Photographs, policy: Changed) -> None:
    """Pass silently when no photograph has changed, or it was said what to do then.

    Raises:
        InputError: some have changed.
    """
    changed = photographs.changed
    if changed and policy is Changed.refuse:
        files = f"{changed[0]} has" if len(changed) == 1 else f"{len(changed)} photographs ({changed[0]} first) have"
        raise InputError(
            f"{files} another size or time than when they were matched. Add --changed rematch to match their pairs "
            "again, or --changed keep if they show the same, as copies do."
        )


def require_size(path: Path, size: Size, *, matched: Size) -> None:
    """Pass silently when a photograph has the size (width, height) it had when it was matched.

    Raises:
        InputError: it has another.
    """
    if size != matched:
        raise InputError(
            f"{path} is {size[0]}x{size[1]} px, but was {matched[0]}x{matched[1]} when it was matched. "
            "Restore the photograph, or match its pairs again with --changed rematch."
        )


def require_sizes(root: Path, names: Sequence[str], matched: Mapping[str, Size]) -> None:
    """The same for those of the names that were matched; one that cannot be read now is no obstacle."""
    for name in names:
        if name in matched:
            with suppress(ImageError):
                require_size(root / name, read_metadata(root / name).size, matched=matched[name])


def require_stretched(job: Path, root: Path, names: Iterable[str]) -> None:
    """Pass silently when none of the names, matched before narrow ranges of 16 bits were stretched, has such a range.

    Raises:
        SettingsDifferError: one has, and its pairs were matched on the few levels that were left.
    """
    for name in names:
        with suppress(ImageError):
            if is_stretched(root / name):
                raise SettingsDifferError(
                    f"{job} was matched when 16-bit photographs were read by their high bytes alone, which leaves "
                    f"little of {name}. Use another --output, or --overwrite."
                )
