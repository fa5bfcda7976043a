"""Boxes are read as zarr reads them, but no more of a chunk is decoded than its wanted sections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from funlib.geometry import Coordinate
from numcodecs import Blosc

from pipeline.volumes import Box, Volume, create_volume

CHUNK = (20, 9, 8)


@pytest.fixture(params=[((3,), "uint8"), ((), "uint64"), ((), "uint16"), ((2,), "float32")])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Volume:
    """Random values in chunks that do not divide the volume; the last chunk is not there."""
    channels, dtype = request.param
    shape = (*channels, 50, 25, 17)
    made = create_volume(tmp_path / "volume.zarr", "values", shape, dtype, voxel_size=(1, 1, 1), chunks=CHUNK)
    values = np.random.default_rng(0).integers(0, 250, shape).astype(dtype)
    values[..., 40:, 18:, 16:] = 0
    made.write(made.box, values)
    (tmp_path / "volume.zarr" / "values" / ".".join(["0"] * len(channels) + ["2"] * 3)).unlink()
    return made


def read(volume: Volume, begin: Sequence[int], end: Sequence[int]) -> np.ndarray:
    return volume.read(Box(Coordinate(begin), Coordinate(end)))


def random_boxes(shape: Sequence[int], number: int) -> list[tuple[list[int], list[int]]]:
    rng = np.random.default_rng(1)
    bounds = [np.sort(rng.integers(0, extent + 1, (number, 2)), axis=1) for extent in shape]
    return [([int(b[n, 0]) for b in bounds], [int(b[n, 1]) for b in bounds]) for n in range(number)]


def test_any_box_is_what_zarr_reads(volume: Volume) -> None:
    empty = ([9, 3, 3], [5, 9, 9])
    for begin, end in [([0, 0, 0], list(volume.shape)), empty, *random_boxes(volume.shape, 200)]:
        region = (..., *(slice(b, e) for b, e in zip(begin, end, strict=True)))
        expected = np.asarray(volume.array[region])
        found = read(volume, begin, end)
        assert found.dtype == expected.dtype and found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)


def test_what_is_read_is_ones_own(volume: Volume) -> None:
    chunk = read(volume, (0, 0, 0), CHUNK)
    chunk += 1
    np.testing.assert_array_equal(read(volume, (0, 0, 0), CHUNK), chunk - 1)


def test_of_a_chunk_only_the_wanted_sections_are_decoded(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    whole, part = Blosc.decode, Blosc.decode_partial

    def counted_whole(codec: Blosc, encoded: bytes, out: Any = None) -> Any:
        values = whole(codec, encoded, out)
        decoded.append(len(values) // volume.array.dtype.itemsize)
        return values

    def counted_part(codec: Blosc, encoded: bytes, first: int, number: int, out: Any = None) -> Any:
        decoded.append(number)
        return part(codec, encoded, first, number, out)

    monkeypatch.setattr(Blosc, "decode", counted_whole)
    monkeypatch.setattr(Blosc, "decode_partial", counted_part)
    channels = int(np.prod(volume.array.shape[:-3]))
    read(volume, (17, 1, 1), (20, 5, 5))
    assert sum(decoded) == channels * 3 * CHUNK[1] * CHUNK[2]
    decoded.clear()
    read(volume, (18, 8, 0), (41, 10, 3))  # 2 sections, the whole chunk, 1 section; of 2 chunks each
    assert sum(decoded) == channels * 2 * (2 + CHUNK[0] + 1) * CHUNK[1] * CHUNK[2]
