"""What regions hand to each other while the graph is linked: edges that go up, scores that come down; one file each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engine.blocks.checksums import array_checksum
from ..errors import UserError
from ..segmentation.cluster_edges import ClusterEdges
from ..segmentation.regional_linkage import LinkedRegion
from ..small_files import read_checked_npy, write_checked_npy

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

    def pieces(self) -> list[np.ndarray]:
        """Everything in a row."""
        linked = self.linked
        sizes = np.array([len(linked.edges), len(linked.seen), len(self.parts), len(linked.target)], np.int64)
        return [sizes, *linked.edges.columns(), *linked.seen.columns(), self.parts, linked.target, linked.score]

    @staticmethod
    def from_bytes(data: np.ndarray) -> RegionTable:
        """From the bytes (N,) uint8 of `pieces`; views of them."""
        words = data.view(np.int64)
        rows, seen, parts, inputs = words[:4].tolist()
        pieces = np.split(words[4:], np.cumsum([rows] * 6 + [seen] * 6 + [2 * parts, inputs]))
        linked = LinkedRegion(_edges(pieces[:6]), _edges(pieces[6:12]), pieces[13], pieces[14].view(np.float64))
        return RegionTable(linked, pieces[12].reshape(-1, 2))


def _edges(columns: list[np.ndarray]) -> ClusterEdges:
    u, v, first_u, first_v = (column.view(np.uint64) for column in columns[:4])
    return ClusterEdges(u, v, first_u, first_v, columns[4], columns[5])


def region_file(folder: Path, index: int) -> Path:
    """Where the file of a region or block lies in a folder of many."""
    return folder / f"{index // FILES_PER_FOLDER}" / f"{index}.npy"


def write_region(folder: Path, index: int, pieces: Sequence[np.ndarray]) -> int:
    """Write arrays of a region or block, with a checksum, in one step; the CRC-32 of all.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    return write_checked_npy(region_file(folder, index), pieces)


def read_region(folder: Path, index: int, cure: str) -> np.ndarray:
    """The bytes (N,) uint8 that were written, mapped into memory.

    Args:
        folder, index: as for `write_region`.
        cure: what to do about a file that is lost or damaged.

    Raises:
        UserError: it is.
    """
    path = region_file(folder, index)
    try:
        data = read_checked_npy(path)
    except FileNotFoundError:
        data = None
    except UserError as error:
        raise UserError(f"{error.what}; {cure}", str(path)) from error
    if data is None:
        raise UserError(f"is lost or damaged; {cure}", str(path))
    return data


def write_parts(folder: Path, parts: np.ndarray, scores: Callable[[slice], np.ndarray]) -> int:
    """Hand the scores of all edges of a region to what they came from; the CRC-32 of all.

    Args:
        folder: of the files.
        parts: of a `RegionTable`.
        scores: gives those of some rows, float64.
    """
    checksum, begin = 0, 0
    for index, rows in parts.tolist():
        part = np.asarray(scores(slice(begin, begin + rows)))
        write_region(folder, index, [part])
        checksum = array_checksum(part, checksum)
        begin += rows
    return checksum
