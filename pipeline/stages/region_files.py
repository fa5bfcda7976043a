"""What regions hand to each other while the graph is linked: edges that go up, scores that come down; one file each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..segmentation.cluster_edges import ClusterEdges
from ..segmentation.regional_linkage import LinkedRegion
from ..small_files import checked, read_npy, unchecked, write_npy

FILES_PER_FOLDER = 1000


@dataclass(frozen=True)
class RegionTable:
    """What a region hands up, and what it needs when the scores come down.

    Attributes:
        linked: its edges, and what became of them.
        parts: (P, 2) int64, the regions or blocks below, by index, and how many edges came from each, in their order.
    """

    linked: LinkedRegion
    parts: np.ndarray

    def to_bytes(self) -> np.ndarray:
        """(N,) uint8, everything in a row."""
        linked = self.linked
        sizes = np.array([*map(len, (linked.edges, linked.seen, self.parts, linked.target))], np.int64)
        columns = [*linked.edges.columns(), *linked.seen.columns(), self.parts, linked.target, linked.score]
        return np.concatenate([np.ascontiguousarray(part).reshape(-1).view(np.uint8) for part in (sizes, *columns)])

    @staticmethod
    def from_bytes(data: np.ndarray) -> RegionTable:
        """The opposite of `to_bytes`."""
        words = data.view(np.int64)
        rows, seen, parts, inputs = words[:4].tolist()
        pieces = np.split(words[4:], np.cumsum([rows] * 6 + [seen] * 6 + [2 * parts, inputs]))
        linked = LinkedRegion(_edges(pieces[:6]), _edges(pieces[6:12]), pieces[13], pieces[14].view(np.float64))
        return RegionTable(linked, pieces[12].reshape(-1, 2))


def _edges(columns: list[np.ndarray]) -> ClusterEdges:
    return ClusterEdges(*(column.view(np.uint64) for column in columns[:4]), columns[4], columns[5])


def region_file(folder: Path, index: int) -> Path:
    """Where the file of a region or block lies in a folder of many."""
    return folder / f"{index // FILES_PER_FOLDER}" / f"{index}.npy"


def write_region(folder: Path, index: int, data: np.ndarray) -> None:
    """Write the bytes (N,) uint8 of a region or block, with a checksum, in one step.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    write_npy(region_file(folder, index), checked(data))


def read_region(folder: Path, index: int, cure: str) -> np.ndarray:
    """The bytes (N,) uint8 that were written.

    Args:
        folder, index: as for `write_region`.
        cure: what to do about a file that is lost or damaged.

    Raises:
        UserError: it is.
    """
    path = region_file(folder, index)
    try:
        data = unchecked(read_npy(path))
    except FileNotFoundError:
        data = None
    except UserError as error:
        raise UserError(f"{error.what}; {cure}", str(path)) from error
    if data is None:
        raise UserError(f"is lost or damaged; {cure}", str(path))
    return data


def region_bytes(folder: Path, index: int) -> int:
    """How large the file of a region is, before it is read; 0 if there is none."""
    path = region_file(folder, index)
    return path.stat().st_size if path.exists() else 0


def write_parts(folder: Path, table: RegionTable, scores: np.ndarray) -> int:
    """Hand the scores (E,) float64 of all edges of a region to what they came from; how many parts that are."""
    ends = np.cumsum(table.parts[:, 1])
    for (index, rows), end in zip(table.parts.tolist(), ends.tolist(), strict=True):
        write_region(folder, index, np.ascontiguousarray(scores[end - rows : end]).view(np.uint8))
    return len(ends)


def region_rows(size: int) -> int:
    """How many edges a file of so many bytes can have at most."""
    return math.ceil(size / (6 * 8))
