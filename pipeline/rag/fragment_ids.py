"""All fragments of a graph by their rows, on disk: a graph of any size is joined row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..disk_arrays import DiskArray
from .tables import NodeTable


class FragmentIds:
    """The ids of all fragments, ascending, as a store gives its nodes.

    Args:
        folder: has room for 8 bytes per fragment.
        count: how many fragments the store says it has.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._array = DiskArray(folder, count, np.uint64)
        self._are_sound = True
        self._end = 0

    @property
    def values(self) -> np.ndarray:
        """(N,) uint64; zeros where none has come yet."""
        return self._array.values

    @property
    def are_all(self) -> bool:
        """Whether as many have come as there should be, each once and in order."""
        return self._are_sound and self._end == len(self.values)

    def add(self, nodes: NodeTable) -> slice:
        """The rows of nodes that come next; as many of them as there is room for."""
        here = slice(self._end, min(self._end + len(nodes), len(self.values)))
        self._are_sound &= len(nodes) == here.stop - here.start
        self.values[here] = nodes.id[: here.stop - here.start]
        joint = self.values[max(here.start - 1, 0) : here.stop]
        self._are_sound &= bool((joint[1:] > joint[:-1]).all())
        self._end = here.stop
        self._array.release()
        return here

    def rows_of(self, fragments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which fragments (M,) there are, bool, and the row of each, int64; those that are not there have any."""
        if not len(self.values):
            return np.zeros(len(fragments), bool), np.zeros(len(fragments), np.int64)
        rows = np.minimum(np.searchsorted(self.values, fragments), len(self.values) - 1).astype(np.int64)
        return self.values[rows] == fragments, rows

    def release(self) -> None:
        """Let go of the memory."""
        self._array.release()
