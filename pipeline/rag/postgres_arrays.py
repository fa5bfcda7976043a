"""Numpy arrays in PostgreSQL's binary formats: COPY as its manual describes it, arrays as `array_send` writes them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.pq import Format
from typing_extensions import override

INT8_OID, FLOAT8_OID = 20, 701
INT8_ARRAY_OID, FLOAT8_ARRAY_OID = 1016, 1022
COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END = struct.pack(">h", -1)
ARRAY_HEADER = struct.Struct(">iiiii")
"""Dimensions, whether there are NULLs, type of the elements, their number, index of the first."""


def copy_row(block: int, columns: Sequence[np.ndarray]) -> bytes:
    """What a binary COPY reads of one row: a block's id and arrays (N,) of integers or floats of 8 bytes."""
    fields = [struct.pack(">q", block), *map(_array, columns)]
    body = b"".join(struct.pack(">i", len(field)) + field for field in fields)
    return COPY_HEADER + struct.pack(">h", len(fields)) + body + COPY_END


def _array(values: np.ndarray) -> bytes:
    is_float = values.dtype.kind == "f"
    elements = np.empty(len(values), dtype=_element(is_float))
    elements["length"] = 8
    elements["value"] = values
    oid = FLOAT8_OID if is_float else INT8_OID
    return ARRAY_HEADER.pack(1, 0, oid, len(values), 1) + elements.tobytes()


def _element(is_float: bool) -> np.dtype:
    return np.dtype([("length", ">i4"), ("value", ">f8" if is_float else ">i8")])


class ArrayLoader(Loader):
    """A one-dimensional array without NULLs as a numpy array, int64 or float64."""

    format = Format.BINARY

    @override
    def load(self, data: Buffer) -> Any:
        _, _, oid = struct.unpack_from(">iii", data)
        is_float = oid == FLOAT8_OID
        kind = np.float64 if is_float else np.int64
        if len(data) < ARRAY_HEADER.size:
            return np.zeros(0, dtype=kind)  # an empty array has no dimensions
        return np.frombuffer(data, _element(is_float), offset=ARRAY_HEADER.size)["value"].astype(kind)


class FloatsDumper(Dumper):
    """A numpy array (N,) float64 as a float8[]."""

    format = Format.BINARY
    oid = FLOAT8_ARRAY_OID

    @override
    def dump(self, obj: np.ndarray) -> Buffer:
        return _array(obj)
