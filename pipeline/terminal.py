"""What is shown on a terminal: tables and progress bars. Where output is no terminal, tables are plain, and in place of
bars there is a line in the log now and then.

rich is imported where something is shown: workers, which show nothing, start sooner without it.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TextIO, TypeVar

from .units import duration

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

ENDLESS = 100_000
"""Columns of output that nothing wraps or cuts."""
SHORTEST_PAUSE, LONGEST_PAUSE = 30.0, 600.0
"""Seconds between two lines that say how far some work is; between these, a tenth of what it has taken so far."""


def replace_what_cannot_be_printed() -> None:
    """Let a terminal that lacks a letter show another sign, rather than lose the run's last words to an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def write_document(text: str) -> None:
    """Write a text to standard output: whole, in UTF-8, into a file; as far as it can be shown, to a terminal."""
    replace_what_cannot_be_printed()
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write(text)


def has_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours, and nobody asked for none (`NO_COLOR`)."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def rendered(shown: RenderableType, colours: bool = False) -> list[str]:
    """What rich makes of text and tables, line by line, neither wrapped nor padded.

    Args:
        shown: text or a table.
        colours: with the codes of a terminal.
    """
    from rich.console import Console

    target = io.StringIO()
    console = Console(
        file=target,
        width=ENDLESS,
        force_terminal=colours,
        color_system="standard" if colours else None,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )
    console.print(shown, soft_wrap=True)
    return [line.rstrip() for line in target.getvalue().splitlines()]


def table_of(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], numbers: Collection[str] = (), header: str = "bold"
) -> Table:
    """A table without lines, two spaces between columns.

    Args:
        columns: headings.
        rows: a cell for each column.
        numbers: the columns that are aligned on the right.
        header: style of the headings.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=header)
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return table


def table_lines(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    numbers: Collection[str] = (),
    stream: TextIO | None = None,
) -> list[str]:
    """The lines of such a table; headings are bold if the stream is a terminal (default: standard output)."""
    return rendered(table_of(columns, rows, numbers), has_colours(stream or sys.stdout))


class ProgressLines:
    """Says in the log how far some work is: rarely enough for a log that somebody reads from its beginning.

    Args:
        title: what the work is called.
        total: pieces in all.
        unit: name of a piece, in the plural.
        done: pieces that were done before.
        now: a clock in seconds.
    """

    def __init__(
        self, title: str, total: int, unit: str, done: int = 0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._title, self._total, self._unit, self._before, self._now = title, total, unit, done, now
        self._began = self._told = now()

    def tell(self, done: int, note: str = "") -> None:
        """Log a line if it is time for one, and there is something left to do.

        Args:
            done: pieces that are done by now, those before included.
            note: what else there is to say.
        """
        moment = self._now()
        pause = min(max(SHORTEST_PAUSE, 0.1 * (moment - self._began)), LONGEST_PAUSE)
        if moment - self._told < pause or done >= self._total:
            return
        self._told = moment
        logger.info(self._line(done, moment - self._began) + (f"; {note}" if note else ""))

    def _line(self, done: int, seconds: float) -> str:
        """`student: 1,200 of 4,000 iterations (30.0 %), 5.2/s, 9.0 min left`."""
        rate = (done - self._before) / seconds
        pace = f", {rate:.3g}/s, {duration((self._total - done) / rate)} left" if rate > 0 else ""
        return f"{self._title}: {done:,} of {self._total:,} {self._unit} ({100 * done / self._total:.1f} %){pace}"


class ProgressBar:
    """A bar with count, rate and time left on standard error; `ProgressLines` where that is no terminal.

    Args:
        title: in front of it.
        total: pieces in all.
        unit: name of a piece, in the plural.
        done: pieces that were done before.
    """

    def __init__(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self._progress = _progress_on_terminal(unit) if sys.stderr.isatty() else None
        if self._progress is not None:
            self._bar = self._progress.add_task(title, total=total, completed=done, rate="", note="")
        self._lines = ProgressLines(title, total, unit, done)
        self._done, self._note = done, ""

    def __enter__(self) -> ProgressBar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def advance(self, note: str | None = None) -> None:
        """One more piece is done; `note` stands behind the bar until there is another."""
        self._done += 1
        self._note = self._note if note is None else note
        if self._progress is None:
            self._lines.tell(self._done, self._note)
            return
        speed = self._progress.tasks[0].speed
        rate = "" if speed is None else f"{speed:.3g}/s"
        self._progress.update(self._bar, advance=1, rate=rate, note=self._note)

    def close(self) -> None:
        """Leave the bar as it is, and the terminal to others."""
        if self._progress is not None:
            self._progress.stop()


def _progress_on_terminal(unit: str) -> Progress:
    """Title, bar, count, rate and time left, side by side."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


def tracked(items: Iterable[Item], title: str, total: int, unit: str) -> Iterator[Item]:
    """Items with a progress bar: each counts as done when the next one is asked for."""
    with ProgressBar(title, total, unit) as bar:
        for item in items:
            yield item
            bar.advance()
