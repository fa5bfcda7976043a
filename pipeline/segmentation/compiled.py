"""Loops over voxels that numpy cannot express, compiled to machine code.

The machine code is kept beside the source, or in the user's cache where the installation cannot be written, so that
workers load it instead of compiling it again. It is keyed by the processor: nodes of different kinds do not share any.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import IndexDataCacheFile
from typing_extensions import override

Loop = TypeVar("Loop", bound=Callable[..., object])


def compiled(function: Loop) -> Loop:
    """Compile a function when it is first called. Arithmetic is IEEE 754's, in the order in which it is written."""
    try:
        dispatcher: Any = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder in which machine code could be kept
        return numba.njit(nogil=True)(function)  # type: ignore[return-value]
    if hasattr(dispatcher, "_cache"):  # with NUMBA_DISABLE_JIT it is the function itself
        cache = dispatcher._cache
        stamp = cache._impl.locator.get_source_stamp()
        cache._cache_file = CodeFiles(cache._cache_path, cache._impl.filename_base, stamp)
    return cast(Loop, dispatcher)


class CodeFiles(IndexDataCacheFile):
    """The machine code of a function, each kind of arguments in a file of its own that says what it holds.

    numba numbers these files and keeps an index of them. Two processes that compile at the same moment for different
    arguments give the same number to both, and from then on the index leads from the one to the code of the other.
    Code for contiguous arrays then reads others as if they were, without an error: contacts were counted that do not
    exist. Here nothing is numbered, a file is replaced as a whole, and one that holds anything else is not used.
    """

    def __init__(self, folder: str, base: str, stamp: object) -> None:
        """Args: where the files lie, how their names begin, and what tells one version of the source from another."""
        super().__init__(folder, base, stamp)  # type: ignore[no-untyped-call]
        self._folder, self._base = Path(folder), base

    @override
    def save(self, key: Any, data: Any) -> None:
        identity, payload = self._identity(key), self._dump(data)  # type: ignore[no-untyped-call]
        with self._open_for_write(str(self._file(key))) as file:
            file.write(_signed(identity) + identity + _signed(payload) + payload)

    @override
    def load(self, key: Any) -> Any:
        try:
            stored = self._file(key).read_bytes()
        except OSError:
            return None
        identity = self._identity(key)
        head, payload = _signed(identity) + identity, stored[_DIGEST + len(identity) + _DIGEST :]
        if stored != head + _signed(payload) + payload:
            return None
        return pickle.loads(payload)

    @override
    def flush(self) -> None:
        for path in self._folder.glob(f"{self._base}.*.code"):
            path.unlink(missing_ok=True)

    def _file(self, key: Any) -> Path:
        return self._folder / f"{self._base}.{sha256(_in_words(key)).hexdigest()[:16]}.code"

    def _identity(self, key: Any) -> bytes:
        return _in_words((self._version, self._source_stamp, key))


_DIGEST = sha256().digest_size


def _signed(content: bytes) -> bytes:
    return sha256(content).digest()


def _in_words(key: Any) -> bytes:
    """A key of numba's, of types, numbers and texts, the same in every process."""
    if isinstance(key, tuple):
        return b"(" + b",".join(map(_in_words, key)) + b")"
    return str(key).encode()
