"""Edges between clusters that lie on the disk, and how those between the same two clusters become one there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from ..disk_arrays import DiskArray, chunks, release_mapped
from ..hashing import splitmix64
from ..segmentation.cluster_edges import ClusterEdges

COLUMNS: dict[str, DTypeLike] = {
    "a": np.int32,
    "b": np.int32,
    "first_u": np.uint64,
    "first_v": np.uint64,
    "sums": np.int64,
    "counts": np.int64,
}

CLUSTER_EDGES: list[DTypeLike] = [np.uint64, np.uint64, np.uint64, np.uint64, np.int64, np.int64]
"""Columns of `ClusterEdges`."""


class EdgesOnDisk:
    """Edges between clusters 0, 1, …; the columns are those of `ClusterEdges`, with the clusters as `a` and `b`.

    Args:
        folder: has room for 40 bytes per edge.
        rows: how many at most; `rows` says how many there are.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self.rows = rows
        self._columns = {name: DiskArray(folder, rows, dtype) for name, dtype in COLUMNS.items()}

    def read(self, rows: slice | np.ndarray) -> dict[str, np.ndarray]:
        """Some rows, by column."""
        return {name: np.array(column.values[rows]) for name, column in self._columns.items()}

    def write(self, rows: slice, columns: dict[str, np.ndarray]) -> None:
        """Set some rows."""
        for name, column in self._columns.items():
            column.values[rows] = columns[name]
        self.release()

    def portions(self) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """All rows, a portion after another."""
        for part in chunks(self.rows):
            yield part, self.read(part)
            self.release()

    def release(self) -> None:
        """Let go of the memory."""
        for column in self._columns.values():
            column.release()


def concatenated_on_disk(tables: Iterable[ClusterEdges], rows: int, folder: Path) -> ClusterEdges:
    """The edges of several tables, so many rows at most, with columns on the disk.

    Raises:
        UserError: the disk is full.
    """
    columns, end = [DiskArray(folder, rows, dtype) for dtype in CLUSTER_EDGES], 0
    for table in tables:
        for column, values in zip(columns, table.columns(), strict=True):
            column.values[end : end + len(table)] = values
            column.release()
            release_mapped(values)
        end += len(table)
    return ClusterEdges(*(column.values[:end] for column in columns))


def united(source: EdgesOnDisk, room: int, folder: Path) -> tuple[EdgesOnDisk, DiskArray]:
    """One edge of all between the same clusters, and for each edge which one it is a part of.

    Edges whose `a` is negative are none, and become a part of -1.
    """
    result, part_of, end = EdgesOnDisk(folder, source.rows), DiskArray(folder, source.rows, np.int64), 0
    portions = -(-source.rows // room)
    for part in chunks(source.rows):
        part_of.values[part] = -1
        part_of.release()
    for portion in range(portions):
        places = [np.zeros(0, np.int64)]
        for part, columns in source.portions():
            chosen = splitmix64(_keys(columns).view(np.uint64)) % np.uint64(portions)
            here = (columns["a"] >= 0) & (chosen == np.uint64(portion))
            places.append(part.start + np.flatnonzero(here))
        rows = np.concatenate(places)
        columns = source.read(rows)
        key = _keys(columns)
        order = np.lexsort((columns["first_v"], columns["first_u"], key))
        begins = np.diff(key[order], prepend=-1) != 0
        if not len(rows):
            continue
        found = {name: column[order[begins]] for name, column in columns.items()}
        for name in ("sums", "counts"):
            found[name] = np.add.reduceat(columns[name][order], np.flatnonzero(begins))
            if (found[name] < 0).any():
                raise OverflowError("two clusters have more contacts with each other than can be counted (2**37)")
        result.write(slice(end, end + int(begins.sum())), found)
        part_of.values[rows[order]] = end + np.cumsum(begins) - 1
        part_of.release()
        end += int(begins.sum())
    result.rows = end
    return result, part_of


def _keys(columns: dict[str, np.ndarray]) -> np.ndarray:
    """(E,) int64, one for each pair of clusters."""
    return np.asarray((columns["a"].astype(np.int64) << 32) | columns["b"])
