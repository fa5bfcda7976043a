"""A door in front of daisy's port, which asks nothing of whoever connects.

Linux runs a small filter on what arrives at a socket. The one here, on the socket at which daisy's server listens, lets
connections be made but drops every segment that carries data; each connection inherits it. A worker that has connected
tells the driver, over a connection that needs the driver's secret, from which port it did so, and the driver takes the
filter off that one connection. Until then daisy hears nothing of what was sent, and nothing has to be passed on by hand
afterwards: the door costs nothing per block.

Other systems have no such filter; there the port is open, as daisy leaves it, and the records of blocks (see
`executors/until_recorded.py`) are what is believed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

ATTACH_FILTER, DETACH_FILTER = 26, 27
"""SO_ATTACH_FILTER and SO_DETACH_FILTER of Linux, which Python has no names for."""
NO_DATA = (
    (0x30, 0, 0, 12),  # A = the byte of the TCP header that begins with its length in words of four bytes
    (0x54, 0, 0, 0xF0),  # A &= 0xf0
    (0x74, 0, 0, 2),  # A >>= 2: the length in bytes
    (0x07, 0, 0, 0),  # X = A
    (0x80, 0, 0, 0),  # A = length of the segment
    (0x1D, 0, 1, 0),  # if A == X go on, otherwise skip one
    (0x06, 0, 0, 0xFFFFFFFF),  # accept all of it
    (0x06, 0, 0, 0),  # drop it
)
"""Classic BPF (code, jump if true, jump if false, operand): segments without data pass."""
OWN_FILES = Path("/proc/self/fd")


def close_to_strangers(port: int) -> bool:
    """Have data that arrives at a port of this process dropped, and hang up on whoever has connected before.

    Returns:
        Whether the system can do that.
    """
    if not sys.platform.startswith("linux"):
        return False
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in NO_DATA))
    program = struct.pack("@HP", len(NO_DATA), ctypes.addressof(instructions))
    closed = False
    for own in _own_sockets():
        if not _is_at_port(own, port):
            continue
        if own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            own.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, program)
            closed = True
        else:
            with contextlib.suppress(OSError):
                own.shutdown(socket.SHUT_RDWR)
    return closed


def open_to(address: str, port: int) -> bool:
    """Let the data of a connection in that somebody made to this process; whether there is one.

    Args:
        address, port: of the other end.
    """
    found = False
    for own in _own_sockets():
        if _peer(own) == (address, port):
            with contextlib.suppress(OSError):  # it has none: this process connected to itself
                own.setsockopt(socket.SOL_SOCKET, DETACH_FILTER, 0)
                found = True
    return found


def ports_connected_to(address: str, port: int) -> set[int]:
    """The ports of this process that are connected to a place."""
    try:
        place = socket.gethostbyname(address)
    except OSError:
        place = address
    return {int(own.getsockname()[1]) for own in _own_sockets() if _peer(own) == (place, port)}


def _own_sockets() -> Iterator[socket.socket]:
    """The internet sockets of this process, whoever in it made them; each is good until the next one."""
    for entry in OWN_FILES.iterdir():
        try:
            if not str(entry.readlink()).startswith("socket:"):
                continue
            number = os.dup(int(entry.name))  # another one, so that closing it closes nothing
        except OSError:
            continue  # it was closed just now
        with socket.socket(fileno=number) as own:
            if own.family in (socket.AF_INET, socket.AF_INET6) and own.type == socket.SOCK_STREAM:
                yield own


def _is_at_port(own: socket.socket, port: int) -> bool:
    return bool(own.getsockname()[1] == port)


def _peer(own: socket.socket) -> tuple[str, int] | None:
    """Address and port of the other end; None if there is none."""
    try:
        address, port = own.getpeername()[:2]
    except OSError:
        return None
    return str(address).removeprefix("::ffff:"), int(port)
