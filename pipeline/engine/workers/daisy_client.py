"""A worker's connection to daisy's server: daisy's own client, less what it wraps around every block.

`daisy.Client` makes of every block a context manager, which judges its status and writes errors to a log of daisy's;
here the worker does the one and the roster and the failures are the other. The core beneath it is the same: it keeps
the block's timeout, and notices when the server's machine is gone.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Protocol

import daisy.v2 as daisy
from daisy import _daisy as daisy_core

logger = logging.getLogger(__name__)


class Client(Protocol):
    """Gives blocks and takes them back; each is either released or reported."""

    def acquire_block(self) -> daisy_core.Block | None:
        """Wait for a block; None if there are no more."""

    def release_block(self, block: daisy_core.Block) -> None:
        """Give a block back, with its status."""

    def report_failure(self, block: daisy_core.Block, error: str) -> None:
        """Give a block back, with the error that ends the worker."""


class NoServer:
    """Stands for the client when the server was gone before the worker came: there are no blocks."""

    def acquire_block(self) -> None:
        """None."""

    def release_block(self, block: daisy_core.Block) -> None:
        """Not called."""

    def report_failure(self, block: daisy_core.Block, error: str) -> None:
        """Not called."""


@contextlib.contextmanager
def connected(context: daisy.Context) -> Iterator[Client]:
    """A connection as long as the block lasts.

    Args:
        context: says where the server is, which task is meant, and which of daisy's workers this is; of one that daisy
            did not start, the number is negative.
    """
    host, port, worker = context["hostname"], int(context["port"]), int(context["worker_id"])
    try:
        client = daisy_core.SyncClient(host, port, context["task_id"], worker if worker >= 0 else None)
    except ConnectionRefusedError:
        logger.warning("no scheduler at %s:%d: its run has ended", host, port)
        yield NoServer()
        return
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):  # it may have gone first
            client.disconnect()
