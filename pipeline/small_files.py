"""Small files, JSON and npy: written in one step, and whatever is wrong with one that is read is one line.

A file may be cut, zeroed, overwritten with something else or altered in a value, and it may come from a stranger. What
reads one here gets what it asked for, or a `DamagedFile`, which names the file and, where there is one, the cure.
"""

from __future__ import annotations

import csv
import functools
import json
import os
import platform
import struct
import tokenize
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar, cast

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from .disk_arrays import chunks, release_mapped
from .errors import UserError, writing

Kind = TypeVar("Kind")

Moment = Annotated[float, Field(ge=0, lt=253_402_300_800, allow_inf_nan=False)]
"""A time in seconds since 1970, up to the year 9999, beyond which no calendar shows it."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A number of things."""
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A measure of something, seconds for example."""
Number = Annotated[float, Field(allow_inf_nan=False)]
"""Any number."""
ProcessId = Annotated[int, Field(ge=0, lt=2**31)]
"""The id that an operating system gives to a process."""

NOT_UNDERSTOOD: tuple[type[Exception], ...] = (ArithmeticError, AttributeError, EOFError, LookupError, RecursionError)
NOT_UNDERSTOOD += (SyntaxError, TypeError, ValueError, csv.Error, struct.error, tokenize.TokenError)
"""What Python raises when the content of a file is not what it is taken for."""
LONGEST_REASON = 200
CHECK_BYTES = 4
"""Of the checksum at the end of a `checked` array."""


class DamagedFile(UserError):
    """A file that is not what it should be: cut, overwritten, or something else altogether."""


@contextmanager
def understanding(where: object, cure: str = "") -> Iterator[None]:
    """Turn what goes wrong while the content of a file is taken apart into one line for the user.

    It belongs around that alone: around anything else it would take a bug for a damaged file.

    Args:
        where: the file, or what else the content came from.
        cure: what to do about it.

    Raises:
        DamagedFile: the content is not what it should be.
    """
    try:
        yield
    except NOT_UNDERSTOOD as error:
        raise DamagedFile(_line(f"{type(error).__name__}: {error}", cure), str(where)) from error


def read_json(path: Path, cure: str = "delete it") -> dict[str, Any]:
    """A JSON object from a file, or an empty one if the file does not exist.

    Raises:
        DamagedFile: the file holds no JSON object.
        UserError: the system refuses to read it.
    """
    data = _read(path)
    return {} if data is None else json_object(data, path, cure)


def json_object(data: bytes | str, where: object, cure: str = "") -> dict[str, Any]:
    """A JSON object from its text.

    Raises:
        DamagedFile: it is none.
    """
    with understanding(where, cure):
        document = json.loads(data)
        if not isinstance(document, dict):
            raise TypeError(f"no JSON object, but {_json_type(document)}")
    return document


def read_json_as(path: Path, kind: type[Kind], cure: str = "delete it") -> Kind | None:
    """What a JSON file says, as a dataclass (or another type) that tells which values it may have; None without a file.

    Args:
        path: the file.
        kind: type of the whole; its own fields decide what fits. Unknown keys are left out.
        cure: what to do about a damaged one.

    Raises:
        DamagedFile: the file says something else.
        UserError: the system refuses to read it.
    """
    document = read_json(path, cure)
    return as_kind(document, kind, path, cure) if document else None


def as_kind(value: Any, kind: type[Kind], where: object, cure: str = "") -> Kind:
    """JSON values as a type that tells which values it may have; see `read_json_as`.

    Raises:
        DamagedFile: they do not fit.
    """
    try:
        fitting: Kind = _adapter(cast(Hashable, kind)).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DamagedFile(_line(f"{place}: {first['msg']}", cure), str(where)) from error
    except NOT_UNDERSTOOD as error:
        raise DamagedFile(_line(str(error), cure), str(where)) from error
    return fitting


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file with one per line, such as `curves.jsonl`; empty if the file does not exist.

    A line that a crash cut short, or that is no object, is left out.
    """
    lines = []
    for text in (_read(path) or b"").splitlines():
        with suppress(DamagedFile):
            lines.append(json_object(text, path))
    return lines


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON object in one step: a reader sees the old or the new file, never half of one.

    Raises:
        UserError: the folder cannot be written.
    """
    text = json.dumps(document, indent=2) + "\n"
    with replaced_file(path) as file:
        file.write(text.encode())


def read_npy(path: Path) -> np.ndarray:
    """The array of an npy file, mapped into memory. Python objects in it are never decoded.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: it is no npy file, or not all there.
    """
    try:
        with understanding(path):
            mapped: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", str(path)) from error
    return mapped


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write an npy file in one step.

    Raises:
        UserError: the folder cannot be written.
    """
    with replaced_file(path) as file:
        np.save(file, array)


def write_npy_rows(path: Path, shape: tuple[int, ...], dtype: np.dtype, rows: Iterable[np.ndarray]) -> None:
    """Write an npy file of a shape in one step, from portions of its rows.

    Raises:
        UserError: the folder cannot be written.
    """
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with replaced_file(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in rows:
            file.write(np.ascontiguousarray(part, dtype).tobytes())


def checked(values: np.ndarray) -> np.ndarray:
    """(N + 4,) uint8: values (N,) uint8 and a checksum of them, to be told from any others; see `unchecked`."""
    return np.append(values, np.frombuffer(_check(values), np.uint8))


def unchecked(stored: np.ndarray) -> np.ndarray | None:
    """(N,) uint8, the values that `checked` was given; None if these are any others."""
    if stored.ndim != 1 or stored.dtype != np.uint8 or len(stored) < CHECK_BYTES:
        return None
    values = np.array(stored[:-CHECK_BYTES])
    return values if _check(values) == stored[-CHECK_BYTES:].tobytes() else None


def write_checked_npy(path: Path, pieces: Sequence[np.ndarray]) -> int:
    """Write arrays one after another into an npy file of bytes, with a checksum behind, in one step.

    Returns:
        The CRC-32 of all.

    Raises:
        UserError: the folder cannot be written.
    """
    checksum = 0

    def rows() -> Iterator[np.ndarray]:
        nonlocal checksum
        for piece in pieces:
            for part in chunks(len(piece)):
                values = np.ascontiguousarray(piece[part]).reshape(-1).view(np.uint8)
                checksum = zlib.crc32(values.data, checksum)
                yield values
                release_mapped(piece)
        yield np.frombuffer(checksum.to_bytes(CHECK_BYTES, "little"), np.uint8)

    size = sum(piece.nbytes for piece in pieces) + CHECK_BYTES
    write_npy_rows(path, (size,), np.dtype(np.uint8), rows())
    return checksum


def read_checked_npy(path: Path) -> np.ndarray | None:
    """(N,) uint8, mapped into memory: what `write_checked_npy` has written; None if the file holds anything else.

    Raises:
        FileNotFoundError, UserError: see `read_npy`.
    """
    stored = read_npy(path)
    if stored.ndim != 1 or stored.dtype != np.uint8 or len(stored) < CHECK_BYTES:
        return None
    values, checksum = stored[:-CHECK_BYTES], 0
    for part in chunks(len(values)):
        checksum = zlib.crc32(np.ascontiguousarray(values[part]).data, checksum)
        release_mapped(stored)
    return values if checksum.to_bytes(CHECK_BYTES, "little") == stored[-CHECK_BYTES:].tobytes() else None


@contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` in one step when the block ends without an error.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            with suppress(OSError):  # file systems that cannot do this need it not
                sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk: a renamed file then survives a loss of power.

    Raises:
        OSError: the file system cannot do that.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", str(path)) from error


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _json_type(value: Any) -> str:
    """What JSON calls a value of Python's."""
    names: dict[type, str] = {list: "an array", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _line(reason: str, cure: str) -> str:
    reason = " ".join(reason.split())
    short = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"
    return f"is damaged ({short}){f'; {cure}' if cure else ''}"


def _check(values: np.ndarray) -> bytes:
    return zlib.crc32(np.ascontiguousarray(values).data).to_bytes(CHECK_BYTES, "little")
