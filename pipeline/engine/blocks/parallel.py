"""Many small pieces of work in the driver: in threads, a bounded number under way, with a progress bar."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ...terminal import ProgressBar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

AHEAD = 4
"""Pieces per thread that wait for their turn or for their result to be taken."""


def in_threads(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], threads: int, total: int, title: str
) -> Iterator[Result]:
    """Results in the order of the pieces; memory depends on the number of threads, not of pieces.

    Threads do, since reading files, decompression and checksums leave Python's lock to the others.

    Args:
        work: called with each piece.
        pieces: taken as they are needed.
        threads: under way at a time.
        total: how many pieces there are, for the progress bar (rate and time left), which appears on terminals only.
        title: of the progress bar.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool, ProgressBar(title, total, "blocks") as bar:
        try:
            for piece in pieces:
                waiting.append(pool.submit(work, piece))
                if len(waiting) >= threads * AHEAD:
                    yield waiting.popleft().result()
                    bar.advance()
            while waiting:
                yield waiting.popleft().result()
                bar.advance()
        finally:
            for future in waiting:
                future.cancel()
