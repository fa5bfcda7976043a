"""An agglomerate file of WEBKNOSSOS (HDF5), of any size: what has a row per fragment or edge lies on disk meanwhile.

Of that, no more is in memory than what a million rows touch. Fragments count from 1 in the order of their ids,
agglomerates likewise; 0 is none. The members of all agglomerates stand one after another in one list; an edge is sorted
in by the places of its two ends there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ... import disk_arrays
from ...disk_arrays import DiskArray, DiskTable, chunks, release_mapped
from ...errors import writing

POSITION = np.dtype((np.int64, 3))


class JoiningEdges:
    """Edges that join fragments, as they come.

    Args:
        folder: where they lie; has room for 20 bytes per edge.
        rows: how many at most, those that come after are left out; `rows` says how many there are.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self._table = DiskTable(folder, rows, np.int64, np.int64, np.float32)

    @property
    def rows(self) -> int:
        """How many there are."""
        return self._table.rows

    def add(self, u: np.ndarray, v: np.ndarray, affinities: np.ndarray) -> None:
        """Add edges between the fragments in the rows u and v (E,), with their mean affinities."""
        self._table.add(u, v, affinities)

    def portions(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """All of them, a portion after another."""
        for part in self._table.portions():
            u, v, affinities = (np.array(column[part]) for column in self._table.columns)
            yield u, v, affinities


@dataclass(frozen=True)
class Agglomerates:
    """Which fragments belong together.

    Attributes:
        number: (N,) int64, the agglomerate of each fragment.
        place: (N,) int64, where each stands in the list of members; -1 if it belongs to none.
        starts: (A + 2,) int64, where the members of each agglomerate begin, 0 included.
    """

    number: DiskArray
    place: DiskArray
    starts: DiskArray

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.starts.values) - 2

    @property
    def members(self) -> int:
        """How many fragments belong to one."""
        return int(self.starts.values[-1])

    @staticmethod
    def of(lut: np.ndarray, folder: Path) -> Agglomerates:
        """From a lookup table (N, 2) uint64, fragment and segment, sorted; a segment has the id of its first fragment,
        and 0 is none. `folder` has room for 24 bytes per fragment.
        """
        number, count = DiskArray(folder, len(lut), np.int64), 0
        for part in chunks(len(lut)):
            ids, segments = np.array(lut[part, 0]), np.array(lut[part, 1])
            begins = ids == segments
            number.values[part][begins] = count + 1 + np.arange(np.count_nonzero(begins))
            count += int(np.count_nonzero(begins))
            others = part.start + np.flatnonzero(~begins & (segments > 0))
            number.values[others] = number.values[_rows_of(segments[others - part.start], lut)]
            number.release()
            release_mapped(lut)
        starts = DiskArray(folder, count + 2, np.int64)
        for part in chunks(len(lut)):
            of_fragment = number.values[part]
            np.add.at(starts.values, of_fragment[of_fragment > 0] + 1, 1)
            _release(number, starts)
        _add_up(starts)
        place, taken = DiskArray(folder, len(lut), np.int64), DiskArray(folder, count + 1, np.int64)
        for part in chunks(len(lut)):
            of_fragment = np.array(number.values[part])
            place.values[part] = -1
            place.values[part][of_fragment > 0] = _next_places(of_fragment[of_fragment > 0], starts, taken)
            _release(number, place, starts, taken)
        return Agglomerates(number, place, starts)

    def release(self) -> None:
        """Let go of the memory."""
        _release(self.number, self.place, self.starts)


def _rows_of(ids: np.ndarray, lut: np.ndarray) -> np.ndarray:
    """Rows (M,) of fragments in a lookup table."""
    unique, inverse = np.unique(ids, return_inverse=True)  # fewer than the table has, which is not copied then
    return np.asarray(np.searchsorted(lut[:, 0], unique)[inverse])


def _add_up(sums: DiskArray) -> None:
    """Replace numbers by their sums up to each."""
    total = 0
    for part in chunks(len(sums.values)):
        sums.values[part] = total + np.cumsum(sums.values[part])
        total = int(sums.values[part][-1])
        sums.release()


def _next_places(group: np.ndarray, starts: DiskArray, taken: DiskArray) -> np.ndarray:
    """The next free places (N,) of some groups, in order.

    Args:
        group: (N,) int64.
        starts: where the places of each group begin.
        taken: how many of each group are taken; changes.
    """
    order = np.argsort(group, kind="stable")
    found, first, counts = np.unique(group[order], return_index=True, return_counts=True)
    places = np.empty(len(group), np.int64)
    rank = np.arange(len(group)) - np.repeat(first, counts)
    places[order] = np.repeat(starts.values[found] + taken.values[found], counts) + rank
    taken.values[found] += counts
    return places


def _release(*arrays: DiskArray) -> None:
    for array in arrays:
        array.release()


def write_agglomerate_file(path: Path, lut: np.ndarray, positions: Iterable[np.ndarray], joining: JoiningEdges) -> None:
    """Write an agglomerate file.

    Args:
        path: the file; its folder has room for 100 bytes per fragment and 32 per edge.
        lut: (N, 2) uint64, fragment and segment, sorted; a segment has the id of its first fragment, and 0 is none.
        positions: (n, 3) int64 of some fragments after the others: voxels of the layer, order x, y, z.
        joining: edges, by the rows of their fragments in `lut`. Their ends are given as places among the fragments of
            their agglomerate, as WEBKNOSSOS wants them.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    agglomerates = Agglomerates.of(lut, path.parent)
    with _hdf5_file(path) as file:
        _write_members(file, agglomerates, positions, path.parent)
        _write_edges(file, agglomerates, joining, path.parent)
        fragment_ids = _dataset(file, "fragment_ids", len(lut) + 1, np.uint64)
        segment_ids, count = _dataset(file, "segment_ids", agglomerates.count + 1, np.uint64), 1
        for part in chunks(len(lut)):
            ids, segments = np.array(lut[part, 0]), np.array(lut[part, 1])
            fragment_ids[part.start + 1 : part.stop + 1] = ids
            begins = ids[ids == segments]
            segment_ids[count : count + len(begins)] = begins
            count += len(begins)
            release_mapped(lut)


@contextmanager
def _hdf5_file(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to be written.

    Raises:
        UserError: the disk is full, which h5py may notice as late as when it closes the file, or is not writable.
    """
    with writing(path):
        file = h5py.File(path, "w", locking=False)
        try:
            yield file
        finally:
            try:
                file.close()
            except RuntimeError as error:
                reason = re.search(r"error message = '([^']*)'", str(error))
                raise OSError(reason[1] if reason else str(error)) from error


def _dataset(file: h5py.File, name: str, rows: int, dtype: type, width: tuple[int, ...] = ()) -> h5py.Dataset:
    return file.create_dataset(name, (rows, *width), dtype)


def _write_members(file: h5py.File, agglomerates: Agglomerates, positions: Iterable[np.ndarray], folder: Path) -> None:
    """Write which agglomerate each fragment belongs to, and the members of each with their positions."""
    number, place = agglomerates.number, agglomerates.place
    fragments = len(number.values)
    members = DiskArray(folder, agglomerates.members, np.int64)
    points = DiskArray(folder, agglomerates.members, POSITION)
    numbers = _dataset(file, "segment_to_agglomerate", fragments + 1, np.uint64)
    for part in chunks(fragments):
        numbers[part.start + 1 : part.stop + 1] = number.values[part]
        belongs = part.start + np.flatnonzero(place.values[part] >= 0)
        members.values[place.values[belongs]] = belongs + 1
        _release(number, place, members)
    end = 0
    for found in positions:
        of_fragment = place.values[end : end + len(found)]
        points.values[of_fragment[of_fragment >= 0]] = found[of_fragment >= 0]
        end += len(found)
        _release(place, points)
    _write_rows(file, "agglomerate_to_segments_offsets", agglomerates.starts, np.uint64)
    _write_rows(file, "agglomerate_to_segments", members, np.uint64)
    _write_rows(file, "agglomerate_to_positions", points, np.int64)


def _write_rows(file: h5py.File, name: str, array: DiskArray, dtype: type) -> None:
    """Write all of an array."""
    dataset = _dataset(file, name, len(array.values), dtype, array.values.shape[1:])
    for part in chunks(len(array.values)):
        dataset[part] = array.values[part]
        array.release()


def _write_edges(file: h5py.File, agglomerates: Agglomerates, joining: JoiningEdges, folder: Path) -> None:
    """Write the edges of each agglomerate."""
    starts, second, affinities = _sorted_in(agglomerates, joining, folder)
    offsets = _dataset(file, "agglomerate_to_edges_offsets", agglomerates.count + 2, np.uint64)
    for part in chunks(agglomerates.count + 2):
        offsets[part] = starts.values[agglomerates.starts.values[part]]
        _release(starts, agglomerates.starts)
    edges = len(second.values)
    ends = _dataset(file, "agglomerate_to_edges", edges, np.uint64, (2,))
    means = _dataset(file, "agglomerate_to_affinities", edges, np.float32)
    for members, rows in _groups(starts):
        first = np.repeat(
            np.arange(members.start, members.stop), np.diff(starts.values[members.start : members.stop + 1])
        )
        order = np.lexsort((second.values[rows], first))
        ordered = np.stack([first, second.values[rows][order]], axis=1)
        begins = agglomerates.starts.values
        ends[rows] = ordered - begins[np.searchsorted(begins, first, side="right") - 1][:, None]
        means[rows] = affinities.values[rows][order]
        _release(starts, second, affinities, agglomerates.starts)


def _sorted_in(
    agglomerates: Agglomerates, joining: JoiningEdges, folder: Path
) -> tuple[DiskArray, DiskArray, DiskArray]:
    """The edges of each member: where they begin (M + 1,), where they lead to (E,), and their affinities (E,). Edges
    between fragments of no agglomerate are left out.
    """
    place, starts = agglomerates.place, DiskArray(folder, agglomerates.members + 1, np.int64)
    for u, _, _ in joining.portions():
        first = place.values[u]
        np.add.at(starts.values, first[first >= 0] + 1, 1)
        _release(place, starts)
    _add_up(starts)
    taken = DiskArray(folder, agglomerates.members, np.int64)
    second, affinities = (DiskArray(folder, int(starts.values[-1]), dtype) for dtype in (np.int64, np.float32))
    for u, v, means in joining.portions():
        first = place.values[u]
        belongs = first >= 0
        at = _next_places(first[belongs], starts, taken)
        second.values[at], affinities.values[at] = place.values[v[belongs]], means[belongs]
        _release(place, starts, taken, second, affinities)
    return starts, second, affinities


def _groups(starts: DiskArray) -> Iterator[tuple[slice, slice]]:
    """Members whose edges are looked at together, and the edges: a member has all of its edges in one group."""
    begin, count = 0, len(starts.values) - 1
    while begin < count:
        first = int(starts.values[begin])
        fitting = int(np.searchsorted(starts.values, first + disk_arrays.CHUNK, side="right")) - 1
        end = min(max(fitting, begin + 1), begin + disk_arrays.CHUNK, count)
        yield slice(begin, end), slice(first, int(starts.values[end]))
        begin = end
