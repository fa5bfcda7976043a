"""The status of a run as text for a terminal of 100 columns."""

from __future__ import annotations

import time as clock
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...units import duration, memory_size
from . import phrases as words
from .model import Life, RunStatus, StageStatus, Standing, State, WorkerStatus

COLUMNS = 100
BAR = 20
"""Characters of a progress bar."""

GREEN, RED, YELLOW, BLUE, DIM, BOLD = "32", "31", "33", "36", "2", "1"
STATE_COLOURS = {
    State.DONE: GREEN,
    State.RUNNING: BLUE,
    State.WAITING: BLUE,
    State.FAILED: RED,
    State.STOPPED: YELLOW,
    State.STALE: YELLOW,
    State.NOT_BEGUN: DIM,
}
STANDING_COLOURS = {Standing.DIED: RED, Standing.LEFT: YELLOW, Standing.SLOW: YELLOW}


@dataclass(frozen=True)
class Look:
    """What a terminal can show.

    Attributes:
        colour: whether it knows colours.
        full, rest: characters of a progress bar.
    """

    colour: bool = False
    full: str = "#"
    rest: str = "."

    def paint(self, text: str, colour: str) -> str:
        """The text in a colour, where there are colours."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colour and text else text


def render_text(status: RunStatus, look: Look, everyone: bool = False) -> str:
    """The status as text.

    Args:
        status: of a run.
        look: what the terminal can show.
        everyone: list all workers.
    """
    parts = [
        _head(status, look),
        _stages(status, look),
        _workers(status, look, everyone),
        _failures(status, look),
        _what_next(status, look),
    ]
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part))) + "\n"


def _head(status: RunStatus, look: Look) -> Iterator[str]:
    yield f"run     {status.directory}"
    when = clock.strftime("%Y-%m-%d %H:%M:%S", clock.localtime(status.time))
    yield f"state   {look.paint(words.headline(status), BOLD)} ({when})"
    colour = YELLOW if status.driver.life is Life.GONE and status.driver.ended is None else ""
    text = words.driver_words(status.driver, status.time)
    yield f"driver  {look.paint(text, colour) if colour else text}"


def _stages(status: RunStatus, look: Look) -> Iterator[str]:
    width = max(len(stage.name) for stage in status.stages)
    indent = " " * (width + 2)
    for stage in status.stages:
        yield _stage_line(stage, look, width)
        lines = _filled(words.details(stage, status.time), COLUMNS - len(indent))
        yield from (indent + look.paint(line, DIM) for line in lines)


def _stage_line(stage: StageStatus, look: Look, width: int) -> str:
    full = int(stage.fraction * BAR)
    bar = look.full * full + look.rest * (BAR - full)
    percent = f"{words.percent(stage):>7}" if stage.is_begun else " " * 7
    state = look.paint(f"{stage.state.value:<9}", STATE_COLOURS[stage.state])
    return f"{stage.name:<{width}}  {state}  {bar}  {percent}  {words.block_words(stage)}".rstrip()


def _filled(parts: Sequence[str], width: int) -> Iterator[str]:
    """As many parts in a line as fit."""
    line = ""
    for part in parts:
        if line and len(line) + 2 + len(part) > width:
            yield line
            line = part
        else:
            line = f"{line}; {part}" if line else part
    if line:
        yield line


def _workers(status: RunStatus, look: Look, everyone: bool) -> Iterator[str]:
    if not status.workers:
        return
    yield f"workers: {words.worker_summary(status.workers)}"
    shown = words.workers_to_show(status.workers, everyone)
    if not shown:
        return
    rows = [("stage", "worker", "node", "place", "block", "for", "done", "failed", "memory"), *map(_worker_row, shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for worker, row in zip([None, *shown], rows, strict=True):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        state = (
            look.paint(words.worker_words(worker), STANDING_COLOURS.get(worker.standing, "0")) if worker else "state"
        )
        line = f"  {'  '.join(cells)}  {state}"
        yield line if worker else look.paint(line, DIM)
        if worker is not None and worker.log and worker.standing.is_trouble:
            yield f"    log: {worker.log}"
    hidden = sum(worker.standing.is_trouble or worker.standing.is_present for worker in status.workers) - len(shown)
    if hidden > 0:
        yield look.paint(f"  and {hidden} more; --all lists all", DIM)


def _worker_row(worker: WorkerStatus) -> tuple[str, ...]:
    return (
        worker.stage,
        worker.worker,
        worker.host,
        words.place_words(worker),
        "" if worker.block is None else str(worker.block),
        duration(worker.block_seconds) if worker.block is not None else "",
        f"{worker.done:,}",
        f"{worker.failed:,}" if worker.failed else "",
        memory_size(worker.memory) if worker.memory else "",
    )


def _failures(status: RunStatus, look: Look) -> Iterator[str]:
    if not status.failures:
        return
    yield look.paint("newest errors:", RED)
    for failure in status.failures:
        yield from (f"  {line}" for line in failure.description.splitlines())
        yield f"      logs: {failure.logs}"


def _what_next(status: RunStatus, look: Look) -> Iterator[str]:
    for stage in words.results(status):
        yield f"segmentation: {stage.output}"
    if words.results(status):
        yield f"look at it:   {words.view_command(status)}"
    if status.command:
        yield f"to go on:     {look.paint(status.command, BOLD)}"
