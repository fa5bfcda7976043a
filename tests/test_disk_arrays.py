"""Arrays on disk keep their values and take no memory once they are released."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.disk_arrays import DiskArray
from pipeline.errors import UserError


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_what_was_released_takes_no_memory_and_is_still_there(tmp_path: Path) -> None:
    array = DiskArray(tmp_path, 8 << 20, np.int64)
    before = resident_bytes()
    array.values[:] = np.arange(8 << 20)
    assert resident_bytes() - before > 40e6
    array.release()
    assert resident_bytes() - before < 20e6
    assert np.array_equal(array.values[::4096], np.arange(8 << 20)[::4096])
    assert not list(tmp_path.iterdir()), "the file has no name"


def test_no_rows_are_fine_and_more_than_the_disk_holds_are_refused(tmp_path: Path) -> None:
    assert len(DiskArray(tmp_path, 0, np.uint64).values) == 0
    with pytest.raises(UserError, match="cannot be written"):
        DiskArray(tmp_path, 1 << 55, np.uint64)
