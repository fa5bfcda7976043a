"""Ctrl-C and SIGTERM, for programs that have something to do before they stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_signals_call(
    handle: Callable[[int], None], signals: Sequence[signal.Signals] = STOP_SIGNALS
) -> Iterator[None]:
    """Call a function with the signal's number at Ctrl-C and SIGTERM, or at one of them, while the block lasts.

    Python lets no thread but the main one do that; in others nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda number, _: handle(number)) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM interrupts as Ctrl-C does while the block lasts, but once.

    Batch systems send it to all processes of a job, and the job's script passes its own on: the second must not disturb
    the end that the first has begun.
    """
    told = threading.Event()

    def interrupt(number: int) -> None:
        if not told.is_set():
            told.set()
            raise KeyboardInterrupt

    with stop_signals_call(interrupt, [signal.SIGTERM]):
        yield


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Processes that this thread starts while the block lasts are never reached by Ctrl-C."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
