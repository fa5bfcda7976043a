"""A record tells what a block wrote, survives being written twice, and is never taken for another's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.engine.blocks.checksums import RECORD, BlockRecords, array_checksum, row_checksums


def test_records_are_read_as_they_were_written_in_any_order(tmp_path: Path) -> None:
    records = BlockRecords(tmp_path / "deep" / "records", 1000)
    assert not records.read().present.any()
    for block in (999, 0, 17):
        records.write(block, 2**63 + block, block)
    table = records.read()
    assert np.flatnonzero(table.present).tolist() == [0, 17, 999]
    assert table.checksum[[0, 17, 999]].tolist() == [2**63, 2**63 + 17, 2**63 + 999]
    assert table.filled[17] == 17


def test_the_same_answer_again_is_counted_and_another_one_starts_anew(tmp_path: Path) -> None:
    records = BlockRecords(tmp_path / "records", 3)
    for _ in range(2):
        records.write(1, 5, 0)
    assert records.read().times.tolist() == [0, 2, 0]
    records.write(1, 6, 0)
    assert records.read().times.tolist() == [0, 1, 0]


def test_what_is_taken_back_proves_nothing_until_it_is_written_again_and_counts_on(tmp_path: Path) -> None:
    records = BlockRecords(tmp_path / "records", 3)
    for block in (0, 1):
        records.write(block, 5, 0)
    records.take_back(np.array([False, True, True]))
    assert records.read().times.tolist() == [1, 0, 0]
    assert [records.has(block) for block in range(3)] == [True, False, False]
    records.write(1, 5, 0)
    assert records.read().times.tolist() == [1, 2, 0]


def test_a_torn_or_misplaced_record_counts_as_absent(tmp_path: Path) -> None:
    records = BlockRecords(tmp_path / "records", 4)
    records.write(0, 12345, 6)
    whole = records.path.read_bytes()
    records.path.write_bytes(whole + whole[: RECORD.itemsize // 2].ljust(RECORD.itemsize, b"\0") + whole)
    assert records.read().present.tolist() == [True, False, False, False]


def test_a_checksum_of_rows_knows_no_order_but_every_value() -> None:
    ids, sums = np.arange(1, 9, dtype=np.uint64), np.linspace(0, 1, 8)
    total = row_checksums(ids, sums).sum()
    assert row_checksums(ids[::-1], sums[::-1]).sum() == total
    assert row_checksums(ids, sums[::-1]).sum() != total
    assert row_checksums(ids[:-1], sums[:-1]).sum() != total


def test_an_array_has_the_checksum_of_its_values_wherever_they_lie() -> None:
    array = np.arange(24, dtype=np.uint64).reshape(2, 3, 4)
    assert array_checksum(array.T.copy().T) == array_checksum(array)
    assert array_checksum(array + 1) != array_checksum(array)
