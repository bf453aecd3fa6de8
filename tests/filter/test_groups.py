"""Groups of images that grow by what speaks for joining them."""

from __future__ import annotations

import numpy as np

from romacli.filter.groups import join_images

# Two groups of two images that two pairs hold together, which stand or fall together.
EDGES = [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3)]
TOGETHER = np.array([[0, 3, 1], [1, 4, 2]])  # 0 1 2, and 0 2 3
NONE = np.zeros((0, 3), int)


def joined(evidence: list[float], *, least: float = 0.0, together: np.ndarray = TOGETHER) -> list[bool]:
    worth = np.full(len(EDGES), 0.1)
    return join_images(EDGES, np.array(evidence), worth, np.full(len(EDGES), least), together)[0].tolist()


def test_what_pairs_of_two_groups_say_is_summed() -> None:
    assert joined([3, 1, 1, 1, 3]) == [True] * 5
    assert joined([3, 1, 1, -4, 3]) == [True, False, False, False, True]
    assert joined([3, 1, 1, -4, 3], together=NONE) == [True, True, False, False, True]  # the way round is known by then


def test_groups_of_which_too_little_is_known_stay_apart() -> None:
    neutral = [3, 0, 0, 0, 3]
    assert joined(neutral) == [True] * 5
    assert joined(neutral, least=0.5) == [True, False, False, False, True]


def test_the_overlap_decides_between_pairs_that_say_the_same() -> None:
    edges, worth = [(0, 1), (0, 2), (1, 2)], np.array([0.1, 0.3, 0.2])
    is_joined, heard = join_images(edges, np.zeros(3), worth, np.zeros(3), NONE)
    assert is_joined.tolist() == [False, True, True]
    assert heard.tolist() == [0, 0, 0]


def test_no_pairs_are_no_groups() -> None:
    assert join_images([], np.zeros(0), np.zeros(0), np.zeros(0), NONE)[0].size == 0
