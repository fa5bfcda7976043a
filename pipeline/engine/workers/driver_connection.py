"""A connection from each worker to its driver: tells a worker that the driver lives, and a driver that a worker left.

daisy's own connection is silent while a block is computed. A worker whose driver has died would go on to the end of its
block, and write where the workers of the next driver may write by then; so it ends as soon as this line breaks. The
driver learns at once from it that a worker has come, left with a reason, or is gone without a word; a batch system
would tell so much later.

A worker sends one line of JSON when it comes, with a secret that only workers of this driver know, and one when it
leaves. The driver answers the first with `welcome`, or hangs up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ...errors import UserError

WELCOME = b"welcome\n"
IDLE_SECONDS, PROBE_SECONDS, PROBES = 30, 10, 6
"""TCP keepalive: a machine that vanished without closing its connections is noticed after a minute and a half."""
TRIES, PAUSE = 5, 0.5
"""Attempts of a worker to reach its driver, and the first pause in seconds between them; they grow by a half."""
CONNECT_TIMEOUT = 10.0


class Unreachable(Exception):
    """A worker cannot reach its driver; the text says where it tried."""


@dataclass
class Line:
    """What the driver knows of one worker.

    Attributes:
        news: called whenever something below changes.
        arrived: it has come; so far at least once.
        connected: it is there.
        goodbye: why it left; None if it is there, or gone without a word.
    """

    news: Callable[[], None]
    arrived: bool = False
    connected: bool = False
    goodbye: str | None = None


@dataclass
class Lifeline:
    """The driver's end of all lines.

    Attributes:
        address: name or address that workers dial.
        port: and the port.
        secret: what they must know.
    """

    address: str
    port: int
    secret: str
    _lines: dict[str, Line] = field(default_factory=dict)

    def expect(self, worker: str, news: Callable[[], None]) -> Line:
        """Make ready for a worker of a name that no other one has or had."""
        self._lines[worker] = line = Line(news)
        return line

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from the first line to the end."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, asyncio.IncompleteReadError):
            keep_alive(writer.get_extra_info("socket"))
            hello = json.loads(await reader.readline())
            line = self._lines.get(hello["worker"])
            if secrets.compare_digest(hello["secret"], self.secret) and not (line is not None and line.connected):
                writer.write(WELCOME)
                await self._accompany(line or Line(lambda: None), reader)
        writer.close()

    async def _accompany(self, line: Line, reader: asyncio.StreamReader) -> None:
        line.arrived = line.connected = True
        line.goodbye = None
        line.news()
        try:
            last = await reader.readline()
            if last:
                line.goodbye = json.loads(last)["goodbye"]
        finally:
            line.connected = False
            line.news()


@contextlib.contextmanager
def listening(address: str) -> Iterator[Lifeline]:
    """Take lines in a thread as long as the block lasts.

    Args:
        address: what workers dial. Only a loopback address keeps other machines out.

    Raises:
        UserError: the address is of no interface of this machine.
    """
    loop = asyncio.new_event_loop()
    lifeline = Lifeline(address, 0, secrets.token_hex(16))
    host = address if is_loopback(address) else "0.0.0.0"
    try:
        server = loop.run_until_complete(asyncio.start_server(lifeline.serve, host, 0, backlog=1024))
    except OSError as error:
        loop.close()
        raise UserError(f"cannot listen on {host}: {error.strerror or error}", "cluster.slurm.address") from error
    lifeline.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield lifeline
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
    """Whether only this machine can dial it."""
    return address == "localhost" or address.startswith("127.") or address == "::1"


@dataclass
class WorkerLine:
    """The worker's end. The process ends when the line breaks."""

    connection: socket.socket
    _leaving: bool = False

    def watch(self) -> None:
        """Wait in a thread for the driver's end."""
        threading.Thread(target=self._watch, daemon=True).start()

    def leave(self, reason: str) -> None:
        """Say why, and hang up."""
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


def dial(address: str, port: int, secret: str, worker: str, tries: int = TRIES) -> WorkerLine:
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
            return _dial(address, port, secret, worker)
        except OSError as error:
            last = error
        if attempt + 1 < tries:
            time.sleep(PAUSE * 1.5**attempt)
    raise Unreachable(
        f"cannot reach the driver at {address}:{port} from {socket.gethostname()}: {last.strerror or last}; if the "
        "driver runs, set cluster.slurm.address to an address or network of its machine that compute nodes can reach"
    )


def _dial(address: str, port: int, secret: str, worker: str) -> WorkerLine:
    connection = socket.create_connection((address, port), CONNECT_TIMEOUT)
    keep_alive(connection)
    connection.sendall(_encoded(worker=worker, secret=secret))
    answer = connection.recv(len(WELCOME))
    connection.settimeout(None)
    if answer != WELCOME:
        raise Unreachable(f"{address}:{port} is not, or no longer, the driver that wants this worker")
    return WorkerLine(connection)


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
