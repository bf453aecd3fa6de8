"""Parse and check the sizes that photographs are resized to; their defaults are in the registry."""

from __future__ import annotations

import re

from romacli.errors import UsageError
from romacli.types import Size


def parse_resolution(word: str, option: str) -> Size:
    """Parse `560` or `640x480` as (width, height) in px.

    Raises:
        UsageError: neither form, or a side of zero.
    """
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", word.strip())
    if not found or int(found[1]) == 0 or found[2] and int(found[2]) == 0:
        raise UsageError(f"{option} {word} is not a size. Write one number, such as 560, or WIDTHxHEIGHT.")
    width = int(found[1])
    return width, int(found[2] or width)


def check_multiple(size: Size | None, divisor: int, option: str) -> None:
    """Check that both sides of a size, if there is one, are multiples of `divisor`.

    Raises:
        UsageError: one is not; the message tells the nearest sizes.
    """
    if size and any(side % divisor for side in size):
        low, high = ("x".join(str(max(1, side // divisor + up) * divisor) for side in size) for up in (0, 1))
        raise UsageError(
            f"{option} {size[0]}x{size[1]} must be a multiple of {divisor} on both sides. Use {low} or {high}."
        )
