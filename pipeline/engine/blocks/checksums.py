"""What every block held when it was written: one small record per block, all of a stage in one file.

A record lies at a place that follows from the block's index, so writing it again replaces it, workers never touch each
other's bytes, and a million blocks are 24 MB that one read brings in. A record that was half written does not fit its
own check and counts as absent.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from isal.isal_zlib import crc32

from ...disk_arrays import chunks, release_mapped
from ...hashing import GOLDEN, splitmix64
from ...run import replaced_file

RECORD = np.dtype([("checksum", "<u8"), ("filled", "<u8"), ("times", "<u4"), ("check", "<u4")])
TAKEN_BACK = np.uint32(1 << 31)
"""Set in `times` of a record whose block is to be computed again: until then the record proves nothing."""


@dataclass(frozen=True)
class RecordTable:
    """The records of all blocks of a stage, by block index.

    Attributes:
        checksum: (N,) uint64, of what the block wrote.
        filled: (N,) uint64, voxels that are not 0; of the graph, voxels in all nodes.
        times: (N,) uint32, how often in a row the block gave this very answer; 0 where there is no record.
    """

    checksum: np.ndarray
    filled: np.ndarray
    times: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """(N,) bool, blocks that have a record."""
        return self.times > 0


class BlockRecords:
    """The file of records of one stage.

    Args:
        path: the file; created with the first record.
        blocks: how many blocks the stage has.
    """

    def __init__(self, path: Path, blocks: int) -> None:
        self.path = path
        self.blocks = blocks

    def write(self, block: int, checksum: int, filled: int) -> None:
        """Note what a block wrote; on disk when this returns.

        Raises:
            OSError: the file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            place = block * RECORD.itemsize
            former, sound = _records(os.pread(file, RECORD.itemsize, place), block)
            again = bool(sound[0]) and int(former["checksum"][0]) == checksum
            record = np.zeros(1, RECORD)
            record["checksum"], record["filled"] = checksum, filled
            record["times"] = (former["times"][0] & ~TAKEN_BACK) + 1 if again else 1
            record["check"] = _check(record, np.array([block], dtype=np.uint64))
            os.pwrite(file, record.tobytes(), place)
            os.fsync(file)
        finally:
            os.close(file)

    def write_all(self, checksums: np.ndarray) -> None:
        """Note at once what all blocks hold, in place of earlier records; on disk when this returns.

        Args:
            checksums: (N,) uint64, by block index.

        Raises:
            UserError: the file cannot be written.
        """
        records = np.zeros(self.blocks, RECORD)
        records["checksum"], records["times"] = checksums, 1
        records["check"] = _check(records, np.arange(self.blocks, dtype=np.uint64))
        with replaced_file(self.path) as file:
            file.write(records.tobytes())

    def read(self) -> RecordTable:
        """The records of all blocks."""
        data = self.path.read_bytes() if self.path.exists() else b""
        return _decoded(data[: self.blocks * RECORD.itemsize].ljust(self.blocks * RECORD.itemsize, b"\0"), 0)

    def has(self, block: int) -> bool:
        """Whether a block has a record that proves that it was computed."""
        if not self.path.exists():
            return False
        with self.path.open("rb") as file:
            data = os.pread(file.fileno(), RECORD.itemsize, block * RECORD.itemsize)
        return bool(_decoded(data, block).present[0])

    def take_back(self, blocks: np.ndarray) -> None:
        """Have the records of some blocks prove nothing until these are computed again; on disk when this returns.

        How often a block gave the same answer is kept. No driver may be at work.

        Args:
            blocks: (N,) bool, by block index.
        """
        if not self.path.exists():
            return
        records, sound = _records(self.path.read_bytes(), 0)
        records = records.copy()
        chosen = np.flatnonzero(sound & blocks.ravel()[: len(records)])
        records["times"][chosen] |= TAKEN_BACK
        records["check"][chosen] = _check(records[chosen], chosen.astype(np.uint64))
        with self.path.open("r+b") as file:
            file.write(records.tobytes())
            file.flush()
            os.fsync(file.fileno())


def array_checksum(data: np.ndarray, before: int = 0) -> int:
    """CRC-32 of an array's values in C order; of several arrays, each is given what came out of those before. Six times
    as fast as that of Python's zlib, which gives the same.
    """
    return int(crc32(np.ascontiguousarray(data).data, before))


def mapped_checksum(mapped: np.ndarray) -> int:
    """`array_checksum` of an npy file that is mapped into memory (see `read_npy`), of which no more is in memory than a
    portion.
    """
    checksum = 0
    for part in chunks(len(mapped)):
        checksum = array_checksum(mapped[part], checksum)
        release_mapped(mapped)
    return checksum


def row_checksums(*columns: np.ndarray) -> np.ndarray:
    """(N,) uint64, a hash per row of a table; the sum over rows, modulo 2^64, is a checksum that knows no order.

    Args:
        columns: (N,) each, of 64-bit integers or floats.
    """
    hashes = np.full(len(columns[0]), len(columns), dtype=np.uint64)
    for column in columns:
        hashes = splitmix64((hashes ^ column.astype(column.dtype.newbyteorder("<")).view(np.uint64)) + GOLDEN)
    return hashes


def _decoded(data: bytes, first_block: int) -> RecordTable:
    records, sound = _records(data, first_block)
    proves = sound & (records["times"] & TAKEN_BACK == 0)
    return RecordTable(records["checksum"], records["filled"], np.where(proves, records["times"], 0).astype(np.uint32))


def _records(data: bytes, first_block: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) `RECORD` from the bytes of a file, and (N,) bool which of them fit their own checks; at least one."""
    whole = len(data) // RECORD.itemsize * RECORD.itemsize
    records = np.frombuffer(data[:whole] or bytes(RECORD.itemsize), RECORD)
    indices = np.arange(first_block, first_block + len(records), dtype=np.uint64)
    return records, records["check"] == _check(records, indices)


def _check(records: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """(N,) uint32, hash of each record and of the block that it belongs to."""
    hashes = row_checksums(records["checksum"], records["filled"], records["times"].astype(np.uint64), indices)
    return (hashes & np.uint64(0xFFFFFFFF)).astype(np.uint32)
