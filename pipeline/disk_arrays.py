"""Arrays in files that have no name, for what grows with the volume and would take too much memory."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import DTypeLike

from .errors import writing

CHUNK = 1 << 20
"""Rows that are looked at together."""


class DiskArray:
    """An array on disk, zeros at first; the file goes with it.

    What was touched of it counts as memory of the process until `release`.

    Args:
        folder: in which the file lies.
        rows: how many; may be 0.
        dtype: of the values.

    Attributes:
        values: (rows,) of `dtype`.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, folder: Path, rows: int, dtype: DTypeLike) -> None:
        size = max(1, rows * np.dtype(dtype).itemsize)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder) as file:
                os.posix_fallocate(file.fileno(), 0, size)  # a disk that is full later would kill the process
                self._map = mmap.mmap(file.fileno(), size)
        self.values = np.frombuffer(self._map, dtype, rows)

    def release(self) -> None:
        """Let go of the memory; the values stay."""
        self._map.madvise(mmap.MADV_DONTNEED)


class DiskTable:
    """Columns on disk to which rows are added.

    Args:
        folder: in which they lie.
        room: rows at most.
        dtypes: of the columns.

    Attributes:
        rows: how many there are.
        overflows: more came than there is room for, which are not there.
        columns: values of each, (room,); those behind the last row are zeros.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, folder: Path, room: int, *dtypes: DTypeLike) -> None:
        self.rows = 0
        self.overflows = False
        self._room = room
        self._arrays = [DiskArray(folder, room, dtype) for dtype in dtypes]
        self.columns = [array.values for array in self._arrays]

    def add(self, *columns: np.ndarray) -> None:
        """Add rows, of which the columns (N,) are given; as many as there is room for."""
        here = slice(self.rows, min(self.rows + len(columns[0]), self._room))
        self.overflows |= here.stop < self.rows + len(columns[0])
        for column, values in zip(self.columns, columns, strict=True):
            column[here] = values[: here.stop - here.start]
        self._release()
        self.rows = here.stop

    def portions(self) -> Iterator[slice]:
        """Consecutive slices of all rows, each let go of when the next one is asked for."""
        for part in chunks(self.rows):
            yield part
            self._release()

    def _release(self) -> None:
        for array in self._arrays:
            array.release()


def release_mapped(array: np.ndarray) -> None:
    """Let go of what is in memory of an array, or a part of one, that numpy has mapped from a file; its values stay."""
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def chunks(rows: int) -> Iterator[slice]:
    """Consecutive slices of so many rows in all."""
    for begin in range(0, rows, CHUNK):
        yield slice(begin, min(begin + CHUNK, rows))
