"""A connection from each worker to its driver: tells a worker that the driver lives, and a driver that a worker left.

daisy's own connection is silent while a block is computed. A worker whose driver has died would go on to the end of its
block, and write where the workers of the next driver may write by then; so it ends as soon as this connection breaks.
The driver learns at once from it that a worker has come, left with a reason, or is gone without a word; a batch system
would tell so much later.

A worker sends one line of JSON when it comes, with a secret that only workers of this driver know, and one when it
leaves. The driver answers the first with `welcome`, or hangs up. In the same way a worker vouches for each connection
that it makes to daisy's port (`daisy_port.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ...errors import UserError
from .daisy_port import close_to_strangers, open_to, ports_connected_to

logger = logging.getLogger(__name__)

WELCOME = b"welcome\n"
IDLE_SECONDS, PROBE_SECONDS, PROBES = 30, 10, 6
"""TCP keepalive: a machine that vanished without closing its connections is noticed after a minute and a half."""
TRIES, PAUSE = 5, 0.5
"""Attempts of a worker to reach its driver, and the first pause in seconds between them; they grow by a half."""
CONNECT_TIMEOUT = 10.0
HELLO_SECONDS = 30.0
"""After which the driver hangs up on who has connected and says nothing."""
ACCEPT_SECONDS, ACCEPT_PAUSE = 5.0, 0.01
"""How long daisy may take to accept a connection that a worker vouches for, and the pause between looks."""


class Unreachable(Exception):
    """A worker cannot reach its driver; the text says where it tried."""


@dataclass
class WorkerConnection:
    """What the driver knows of one worker by its connection.

    Attributes:
        on_change: called whenever something below changes.
        arrived: it has come; so far at least once.
        connected: it is there.
        goodbye: why it left; None if it is there, or gone without a word.
    """

    on_change: Callable[[], None]
    arrived: bool = False
    connected: bool = False
    goodbye: str | None = None


@dataclass
class DriverServer:
    """The driver's end of all connections.

    Attributes:
        address: name or address that workers connect to.
        port: and the port.
        secret: what they must know.
    """

    address: str
    port: int
    secret: str
    _connections: dict[str, WorkerConnection] = field(default_factory=dict)
    _guarded: dict[int, bool] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def guard(self, port: int) -> None:
        """From now on, let only those reach daisy's port for whom a worker vouches; once, where the system can."""
        with self._lock:
            if port not in self._guarded:
                try:
                    self._guarded[port] = close_to_strangers(port)
                except OSError as error:
                    logger.warning("daisy's port is open to everybody who reaches it: %s", error)
                    self._guarded[port] = False

    def expect(self, worker: str, on_change: Callable[[], None]) -> WorkerConnection:
        """Make ready for a worker of a name that no other one has or had."""
        self._connections[worker] = connection = WorkerConnection(on_change)
        return connection

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from the first line to the end."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, asyncio.IncompleteReadError):
            keep_alive(writer.get_extra_info("socket"))
            hello = json.loads(await asyncio.wait_for(reader.readline(), HELLO_SECONDS))
            known = secrets.compare_digest(hello["secret"], self.secret)
            if known and "opens" in hello:
                if await self._opened(writer.get_extra_info("peername")[0], int(hello["opens"])):
                    writer.write(WELCOME)
                writer.close()
                return
            connection = self._connections.get(hello["worker"]) or WorkerConnection(lambda: None)
            if known and not connection.connected:
                writer.write(WELCOME)
                await self._follow(connection, reader)
        writer.close()

    async def _opened(self, address: str, port: int) -> bool:
        """Let a worker's connection through to daisy, once daisy has accepted it; whether there is one."""
        if not any(self._guarded.values()):
            return True
        deadline = time.monotonic() + ACCEPT_SECONDS
        while not open_to(address, port):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(ACCEPT_PAUSE)
        return True

    async def _follow(self, connection: WorkerConnection, reader: asyncio.StreamReader) -> None:
        """A worker's connection, from when it was let in until it ends."""
        connection.arrived = connection.connected = True
        connection.goodbye = None
        connection.on_change()
        try:
            last = await reader.readline()
            if last:
                connection.goodbye = json.loads(last)["goodbye"]
        finally:
            connection.connected = False
            connection.on_change()


@contextlib.contextmanager
def driver_server(address: str) -> Iterator[DriverServer]:
    """Listen to workers in a thread as long as the block lasts.

    Args:
        address: what workers connect to. Only a loopback address keeps other machines out.

    Raises:
        UserError: the address is of no interface of this machine.
    """
    loop = asyncio.new_event_loop()
    listener = DriverServer(address, 0, secrets.token_hex(16))
    host = address if is_loopback(address) else "0.0.0.0"
    try:
        server = loop.run_until_complete(asyncio.start_server(listener.serve, host, 0, backlog=1024))
    except OSError as error:
        loop.close()
        raise UserError(f"cannot listen on {host}: {error.strerror or error}", "cluster.slurm.address") from error
    listener.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(_hang_up(loop, server))
        loop.close()


async def _hang_up(loop: asyncio.AbstractEventLoop, server: asyncio.Server) -> None:
    server.close()
    others = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def is_loopback(address: str) -> bool:
    """Whether only this machine can connect to it."""
    return address == "localhost" or address.startswith("127.") or address == "::1"


@dataclass
class DriverConnection:
    """The worker's end. The process ends when the connection breaks."""

    connection: socket.socket
    _leaving: bool = False

    def watch(self) -> None:
        """End this process when the driver ends; a thread waits for that."""
        threading.Thread(target=self._watch, daemon=True).start()

    def leave(self, reason: str) -> None:
        """Say why the worker leaves, and close the connection."""
        self._leaving = True
        with contextlib.suppress(OSError):
            self.connection.sendall(_encoded(goodbye=reason))
            self.connection.shutdown(socket.SHUT_WR)

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            while self.connection.recv(64):
                pass
        if not self._leaving:
            os.write(2, b"the driver is gone: this worker ends\n")
            os._exit(1)


def connect(address: str, port: int, secret: str, worker: str, tries: int = TRIES) -> DriverConnection:
    """Reach the driver, whose network may need a moment.

    Args:
        address, port: of the driver.
        secret: of the driver.
        worker: the name under which it expects this worker.
        tries: attempts.

    Raises:
        Unreachable: nobody answers there, or not the driver that started this worker.
    """
    for attempt in range(tries):
        try:
            return _connect(address, port, secret, worker)
        except OSError as error:
            last = error
        if attempt + 1 < tries:
            time.sleep(PAUSE * 1.5**attempt)
    raise Unreachable(
        f"cannot reach the driver at {address}:{port} from {socket.gethostname()}: {last.strerror or last}; if the "
        "driver runs, set cluster.slurm.address to an address or network of its machine that compute nodes can reach"
    )


@dataclass
class Voucher:
    """Vouches for the connections of this process to daisy's port.

    Args:
        address, port, secret: of the driver.
        worker: the name of this worker.
    """

    address: str
    port: int
    secret: str
    worker: str
    _told: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def vouch(self, daisy_address: str, daisy_port: int) -> None:
        """Have the driver let the data of all connections in that this process has to daisy's port.

        Raises:
            Unreachable: the driver does not answer, or sees no such connection.
        """
        with self._lock:
            for own in ports_connected_to(daisy_address, daisy_port) - self._told:
                try:
                    with _welcomed_connection(
                        self.address, self.port, opens=own, worker=self.worker, secret=self.secret
                    ):
                        self._told.add(own)
                except OSError as error:
                    raise Unreachable(f"the driver at {self.address}:{self.port} is gone: {error}") from error


def _connect(address: str, port: int, secret: str, worker: str) -> DriverConnection:
    return DriverConnection(_welcomed_connection(address, port, worker=worker, secret=secret))


def _welcomed_connection(address: str, port: int, **message: Any) -> socket.socket:
    """A connection to the driver, which has welcomed a first message.

    Raises:
        OSError: nobody answers.
        Unreachable: it is not welcome.
    """
    connection = socket.create_connection((address, port), CONNECT_TIMEOUT)
    keep_alive(connection)
    connection.sendall(_encoded(**message))
    answer = connection.recv(len(WELCOME))
    connection.settimeout(None)
    if answer != WELCOME:
        connection.close()
        raise Unreachable(f"{address}:{port} is not, or no longer, the driver that wants this worker")
    return connection


def keep_alive(connection: socket.socket) -> None:
    """Have the system notice when the other machine has vanished."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", IDLE_SECONDS),
        ("TCP_KEEPINTVL", PROBE_SECONDS),
        ("TCP_KEEPCNT", PROBES),
    ):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _encoded(**message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"
