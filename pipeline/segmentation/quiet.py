"""Keep waterz, which talks to standard output from C++ and from Python, quiet, and nobody else.

Redirecting file descriptor 1 would swallow what other threads print meanwhile. Instead C++'s `std::cout` is put into
its failed state, in which it drops what is sent to it, and `sys.stdout` drops what this one thread prints.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_BAD, _GOOD = 1, 0
_one_at_a_time = threading.Lock()


@contextmanager
def silenced() -> Iterator[None]:
    """Drop what C++ code, and Python code of this thread, sends to standard output.

    Other threads that want silence wait; those that print are heard. Where C++ does not use GNU's library
    (outside Linux) its output stays audible: harmless, but loud.
    """
    with _one_at_a_time:
        set_state = _cout_state()
        python_stdout = sys.stdout
        sys.stdout = _muted.around(python_stdout)
        set_state(_BAD)
        try:
            yield
        finally:
            set_state(_GOOD)
            sys.stdout = python_stdout


class _MutedForThread:
    """A text stream that ignores what one thread writes, and passes on everything else."""

    _stream: Any = None
    _thread = 0

    def around(self, stream: Any) -> Any:
        """This object, muting the current thread on `stream`."""
        self._stream, self._thread = stream, threading.get_ident()
        return self

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._thread else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_muted = _MutedForThread()
"""Lives as long as the process: Python's `print` does not hold on to `sys.stdout`, so replacing it by an object that is
then freed crashes threads that are just printing (CPython before 3.14)."""


def _cout_state() -> Any:
    """A function that sets the state of `std::cout`."""
    try:
        library = ctypes.CDLL("libstdc++.so.6")
    except OSError:
        return lambda state: None
    stream = ctypes.addressof(ctypes.c_char.in_dll(library, "_ZSt4cout"))
    table = ctypes.c_void_p.from_address(stream).value or 0
    base = stream + ctypes.c_ssize_t.from_address(table - 3 * ctypes.sizeof(ctypes.c_void_p)).value
    clear = library["_ZNSt9basic_iosIcSt11char_traitsIcEE5clearESt12_Ios_Iostate"]  # std::ios::clear(state)
    clear.argtypes, clear.restype = [ctypes.c_void_p, ctypes.c_int], None
    return lambda state: clear(base, state)
