"""Different spellings of image names: which are the same name, and which was probably meant. Imports nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar
from unicodedata import normalize

T = TypeVar("T")


def composed(name: str) -> str:
    """The composed Unicode form (NFC) of a name; macOS writes names decomposed."""
    return name if name.isascii() else normalize("NFC", name)


def spelled(wanted: Iterable[str], held: Collection[str]) -> dict[str, str]:
    """Map each wanted name to the held name it stands for: itself, or else the only one equal up to Unicode form.

    Names without such a held name, or with several, are left out.
    """
    wanted, names = list(wanted), set(held)
    found = {name: name for name in wanted if name in names}
    left = [name for name in wanted if name not in names]
    if left:
        by_key: dict[str, list[str]] = {}
        for name in names:
            by_key.setdefault(composed(name), []).append(name)
        keys = {name: by_key.get(composed(name), []) for name in left}
        found.update((name, same[0]) for name, same in keys.items() if len(same) == 1)
    return found


def respelled(values: Mapping[str, T], held: Collection[str]) -> dict[str, T]:
    """Rename values to the held spelling of their names, in order; names that are not held stay as they are.

    If several spellings of one held name occur, the exact one takes it, otherwise the first; the others stay as well.
    """
    meant = spelled(values, held)
    taken = {name for name, other in meant.items() if name == other}
    renamed: dict[str, T] = {}
    for name, value in values.items():
        other = meant.get(name, name)
        is_free = other == name or other not in taken
        taken.add(other)
        renamed[other if is_free else name] = value
    return renamed


def nearest_name(name: str, held: Collection[str]) -> str | None:
    """The held name that was probably meant by one that is not held, or None if none is close.

    This is the name with the longest common path suffix, ignoring case, provided the suffix includes a folder or all
    of either name; a file of the same name in another folder does not count. Otherwise it is the closest spelling.
    """
    parts = _parts(name)
    tails = {other: _common(parts, _parts(other)) for other in held}
    longest = max(tails.values(), default=0)
    ends = [other for other, tail in tails.items() if tail == longest]
    if longest:
        whole = [other for other in ends if longest >= min(2, len(parts), len(_parts(other)))]
        if whole:
            return whole[0] if len(whole) == 1 else None
    folded = {_stem(_parts(other)): other for other, tail in tails.items() if not tail}
    close = get_close_matches(_stem(parts), folded, n=1, cutoff=0.75)
    return folded[close[0]] if close else None


def with_guess(name: str, held: Collection[str]) -> str:
    """A name that is not held, with the one that was probably meant."""
    guess = nearest_name(name, held)
    return f"{name} (did you mean {guess}?)" if guess else name


def _parts(name: str) -> list[str]:
    return composed(name).casefold().split("/")


def _stem(parts: list[str]) -> str:
    """A path without its extension, which would make unrelated names look similar."""
    path = "/".join(parts)
    return path.rpartition(".")[0] or path


def _common(one: list[str], other: list[str]) -> int:
    """Number of parts that two paths have in common at their ends."""
    count = 0
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return count
