"""What all retries have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from romacli.errors import UsageError
from romacli.matchers.matcher import CoarseMatcher, KeypointMatcher, Matcher
from romacli.run.options import MatchOptions
from romacli.run.retries.sparse import FileMatches
from romacli.types import Correspondences, Features, Pair, PairResult, Rejected

# A retry must find twice the overlap, or so much more: copies enlarged by 3 overlapped by up to 0.34 and, matched with
# the part they show, by 0.55 (mini, eleven photographs).
_CLEAR_GAIN = 0.1


class Retry(Protocol):
    """A retry. encodes: number of photographs, and parts of them, that it encoded in full."""

    encodes: int

    def improve(self, result: PairResult, pair: Pair, features: tuple[Features, Features], seed: int) -> PairResult:
        """Return the result of a pair, or a better one, in the frames of the upright photographs; B may be rotated."""
        ...

    def clear(self) -> None:
        """Free the memory kept between pairs."""
        ...


def check_retries(matcher: Matcher, options: MatchOptions, names: Sequence[str] = ()) -> None:
    """Check that a matcher supports the requested retries, and that files for them have some of these images.

    Raises:
        UsageError: it does not.
        InputError: a file does not exist, or has none of the images.
        StoreError: a file is damaged, or not of hloc's format.
    """
    if options.turns_every_pair and isinstance(matcher, KeypointMatcher):
        raise UsageError(f"--try-rotations always needs a dense matcher, but {matcher.name} gives keypoints. Omit it.")
    if options.scales_every_pair and not isinstance(matcher, CoarseMatcher):
        needs = "--try-scales always needs a matcher with a coarse stage"
        raise UsageError(f"{needs}, but {matcher.name} has none. Try mini.")
    asked = "--rescue always" if options.rescues_every_pair else "--rescue-from" if options.rescue_from else None
    if asked and not getattr(matcher, "starts_from_points", False):
        raise UsageError(f"{asked} needs a matcher that can start from points, but {matcher.name} cannot. Try mini.")
    if options.rescue_from:
        FileMatches(options.rescue_from, {}).check(names)


def is_weak(result: PairResult, overlap: float) -> bool:
    """Whether a pair's overlap is below this value, so that a retry may help."""
    return not isinstance(result, Correspondences) and result.overlap < overlap


def least_overlap(result: PairResult) -> float:
    """The overlap a retry must exceed to be clearly better."""
    assert not isinstance(result, Correspondences)
    return 0.0 if isinstance(result, Rejected) else result.overlap + min(result.overlap, _CLEAR_GAIN)
