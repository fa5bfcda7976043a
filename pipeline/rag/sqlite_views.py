"""Views that unpack records in plain SQL, so that `sqlite3 rag.sqlite 'SELECT * FROM edges WHERE u = 17'` works.

SQLite has no function that reads a number from bytes: an integer is put together from the digits of their `hex`, a
float from its sign, exponent and mantissa. That is slow (some hundred thousand rows per second and less) and exact.
"""

from __future__ import annotations

import numpy as np

DIGITS = 16
"""Hexadecimal digits of a value; every value has 8 bytes."""
AXES = ("z", "y", "x")


def view(name: str, table: str, record: np.dtype, page: int, part_bits: int) -> str:
    """SQL that creates a view of the records of a table.

    Args:
        name: of the view.
        table: with columns `part` (block × 2^part_bits + number) and `records`.
        record: its fields, of 8 bytes per value, little endian.
        page: bytes that a row may hold.
        part_bits: see `table`.
    """
    digits, numbers, columns = [], [], []
    for column, offset, kind in _values(record):
        position = f"at + {offset + 1}"
        digits.append(f"hex(substr(records, {position}, 8)) AS {column}")
        numbers.append(f"{_integer(column)} AS {column}")
        columns.append(f"{_float(column)} AS {column}" if kind == "f" else column)
    size = record.itemsize
    return f"""
CREATE VIEW IF NOT EXISTS {name} AS
WITH RECURSIVE place(at) AS (SELECT 0 UNION ALL SELECT at + {size} FROM place WHERE at + {size} < {page}),
digits AS (SELECT part >> {part_bits} AS block, {", ".join(digits)}
    FROM {table} CROSS JOIN place ON at < length(records)),
numbers AS (SELECT block, {", ".join(numbers)} FROM digits)
SELECT block, {", ".join(columns)} FROM numbers"""


def _values(record: np.dtype) -> list[tuple[str, int, str]]:
    """Column name, offset in bytes and kind ("f" for floats) of every value of a record."""
    values: list[tuple[str, int, str]] = []
    offset = 0
    for name in record.names or ():
        field = record[name]
        names = [name] if not field.shape else [axis if name == "centre" else f"{name}_{axis}" for axis in AXES]
        values += [(column, offset + 8 * place, field.base.kind) for place, column in enumerate(names)]
        offset += field.itemsize
    return values


def _integer(digits: str) -> str:
    """The integer of 16 little-endian hexadecimal digits."""
    terms = []
    for place in range(DIGITS):
        byte, low = divmod(place, 2)
        terms.append(f"((instr('123456789ABCDEF', substr({digits}, {place + 1}, 1))) << {8 * byte + 4 * (1 - low)})")
    return " | ".join(terms)


def _float(bits: str) -> str:
    """The float whose bits are an integer; NULL if it is not a number."""
    exponent, mantissa = f"(({bits} >> 52) & 2047)", f"({bits} & {2**52 - 1})"
    sign = f"(CASE WHEN {bits} < 0 THEN -1.0 ELSE 1.0 END)"
    return (
        f"CASE {exponent} WHEN 2047 THEN NULL WHEN 0 THEN 0.0 "
        f"ELSE {sign} * ({mantissa} | {2**52}) * pow(2.0, {exponent} - 1075) END"
    )
