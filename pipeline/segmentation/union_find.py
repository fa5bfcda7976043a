"""Sets of numbers that are joined two by two: connected components of a graph whose edges come in any portions."""

from __future__ import annotations

import numpy as np

from .compiled import compiled


@compiled
def root_of(parent: np.ndarray, number: int) -> int:
    """The smallest number of a set; the way there becomes shorter."""
    while parent[number] != number:
        parent[number] = parent[parent[number]]
        number = parent[number]
    return number


@compiled
def join(parent: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """Join the sets of first[i] and second[i], for all i.

    Args:
        parent: (N,) of any integers; for each number another one of its set that is smaller, or itself. At the
            beginning, everybody itself.
        first, second: (E,) int64.
    """
    for edge in range(len(first)):
        a, b = root_of(parent, first[edge]), root_of(parent, second[edge])
        if a < b:
            parent[b] = a
        else:
            parent[a] = b


@compiled
def settle(parent: np.ndarray, begin: int, end: int) -> None:
    """Give the numbers begin .. end - 1 the smallest of their set as parent; those before must have theirs."""
    for number in range(begin, end):
        parent[number] = parent[parent[number]]


@compiled
def roots_of(parent: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The smallest number (N,) int64 of the set of each of some numbers (N,) int64."""
    roots = np.empty(len(numbers), np.int64)
    for place in range(len(numbers)):
        roots[place] = root_of(parent, numbers[place])
    return roots
