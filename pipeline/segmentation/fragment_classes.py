"""Classes of fragments (soma, glia, myelin, out of tissue), across which nothing is ever joined.

A fragment has the class of most of its voxels. An edge between two classes, and every edge of a class that stands
alone, is no edge for the linkage: neither is it merged, nor does it count in the mean of a merged edge. So clusters are
of one class, at every threshold. 0 is a class like any other: what nothing else was said about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .components import relabel

FORBIDDEN = 2.0
"""The merge score of edges that classes forbid: above every threshold, for these are from 0 to 1."""

ALONE = np.uint64(2**64 - 1)
"""The class of fragments that join nothing, not even each other."""

_MOST_BINS = 1 << 24
"""Pairs of fragment and class up to which they are counted in a table; more are sorted."""


@dataclass(frozen=True)
class FragmentClasses:
    """A class for each fragment.

    Attributes:
        ids: (N,) uint64, fragments, sorted. Those that are not listed have the class 0.
        classes: (N,) uint64; `ALONE` for fragments that join nothing.
    """

    ids: np.ndarray
    classes: np.ndarray

    @staticmethod
    def of(ids: np.ndarray, classes: np.ndarray, alone: Sequence[int] = ()) -> FragmentClasses:
        """From a class per fragment.

        Args:
            ids: (N,) fragments in any order, each once.
            classes: (N,) whole numbers from 0 to 2⁶⁴ - 2.
            alone: classes whose fragments join nothing.

        Raises:
            ValueError: the arrays differ in length, a fragment occurs twice, or a class is no such number.
        """
        ids, classes = np.asarray(ids, np.uint64).ravel(), _as_classes(np.asarray(classes)).ravel()
        if len(ids) != len(classes):
            raise ValueError(f"{len(ids)} fragments and {len(classes)} classes do not belong together")
        order = np.argsort(ids, kind="stable")
        ids, classes = ids[order], classes[order]
        if (ids[1:] == ids[:-1]).any():
            raise ValueError("a fragment has two classes")
        return FragmentClasses(ids, _set_alone(classes, alone))

    @staticmethod
    def of_voxels(fragments: np.ndarray, classes: np.ndarray, alone: Sequence[int] = ()) -> FragmentClasses:
        """From a class per voxel: that of the majority of a fragment's voxels, of equally many the smallest.

        Args:
            fragments: (z, y, x), ids; 0 is no fragment.
            classes: (z, y, x), whole numbers from 0 to 2⁶⁴ - 2, or bool.
            alone: classes whose fragments join nothing.

        Raises:
            ValueError: the arrays differ in shape, or a class is no such number.
        """
        ids, majority = majority_classes(fragments, classes)
        return FragmentClasses(ids, _set_alone(majority, alone))

    def of_fragments(self, ids: np.ndarray) -> np.ndarray:
        """(N,) uint64, the classes of fragments in any order."""
        return relabel(ids, self.ids, self.classes)

    def forbid(self, edges: np.ndarray) -> np.ndarray:
        """(E,) bool, which edges (E, 2) join nothing."""
        edges = np.asarray(edges, np.uint64).reshape(-1, 2)
        return forbidden(self.of_fragments(edges[:, 0]), self.of_fragments(edges[:, 1]))


def forbidden(of_u: np.ndarray, of_v: np.ndarray) -> np.ndarray:
    """(E,) bool, which edges join nothing, from the classes (E,) uint64 of their ends."""
    result: np.ndarray = (of_u != of_v) | (of_u == ALONE)
    return result


def majority_classes(fragments: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class that most voxels of each fragment have; of equally many the smallest.

    Args:
        fragments, classes: as for `FragmentClasses.of_voxels`.

    Returns:
        ids (N,) uint64, sorted; classes (N,) uint64.

    Raises:
        ValueError: the arrays differ in shape, or a class is no whole number from 0 to 2⁶⁴ - 2.
    """
    if fragments.shape != classes.shape:
        raise ValueError(f"{fragments.shape} voxels of fragments and {classes.shape} of classes do not belong together")
    inside = fragments != 0
    ids, fragment = _numbered(fragments[inside].astype(np.uint64))
    known, kind = _numbered(_as_classes(classes[inside]))
    if len(known) <= 1:
        return ids, np.repeat(known, len(ids))
    pairs, count = _counted(fragment * len(known) + kind, len(ids) * len(known))
    owner, kind = np.divmod(pairs, len(known))
    order = np.lexsort((kind, -count, owner))
    first = order[np.flatnonzero(np.diff(owner[order], prepend=-1))]
    return ids, known[kind[first]]


def _numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values of (N,) uint64, sorted, and the place of each value among them; sorting only what must be."""
    if not len(values):
        return values, np.zeros(0, np.int64)
    low, high = values.min(), values.max()
    if int(high) - int(low) >= 2 * len(values) + 256:
        distinct, place = np.unique(values, return_inverse=True)
        return distinct, place.ravel()
    shifted = (values - low).astype(np.int64)
    there = np.zeros(int(high) - int(low) + 1, bool)
    there[shifted] = True
    return np.flatnonzero(there).astype(np.uint64) + low, (np.cumsum(there) - 1)[shifted]


def _counted(keys: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct keys (N,) from 0 to bins - 1, sorted, and how often each occurs."""
    if bins > _MOST_BINS:
        found, count = np.unique(keys, return_counts=True)
        return found, count
    table = np.bincount(keys, minlength=bins)
    found = np.flatnonzero(table)
    return found, table[found]


def _as_classes(classes: np.ndarray) -> np.ndarray:
    """The same classes as uint64.

    Raises:
        ValueError: one is no whole number from 0 to 2⁶⁴ - 2.
    """
    if classes.dtype.kind not in "uib":
        raise ValueError(f"classes are whole numbers, not {classes.dtype.name}")
    if classes.dtype.kind == "i" and classes.size and classes.min() < 0:
        raise ValueError(f"{int(classes.min())} is no class; classes are 0 or more")
    result = classes.astype(np.uint64)
    if result.size and result.max() == ALONE:
        raise ValueError(f"{int(ALONE)} is no class; the largest is {int(ALONE) - 1}")
    return result


def _set_alone(classes: np.ndarray, alone: Sequence[int]) -> np.ndarray:
    chosen = np.isin(classes, np.array(list(alone), np.uint64))
    return np.where(chosen, ALONE, classes)
