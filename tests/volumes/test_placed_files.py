"""Small files at any place: what cannot be read is one line, and what is not there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from isal.isal_zlib import crc32

from pipeline.errors import UserError
from pipeline.volumes.locations import Location
from pipeline.volumes.placed_files import checksum_of_file


def test_checksums_of_files_that_are_there_are_not_or_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"some bytes")
    (tmp_path / "folder").mkdir()
    here = Location.of(str(tmp_path))
    assert checksum_of_file(here, "file") == crc32(b"some bytes")
    assert checksum_of_file(here, "nothing") is None and checksum_of_file(here, "file/below") is None
    with pytest.raises(UserError, match=r"folder: cannot be read: Is a directory"):
        checksum_of_file(here, "folder")
