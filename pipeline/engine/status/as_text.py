"""The status of a run as text for a terminal of 100 columns."""

from __future__ import annotations

import time as clock
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from ...terminal import rendered, table_of
from ...units import duration, memory_size
from . import phrases
from .model import DriverState, RunStatus, StageState, StageStatus, TrainingStatus, WorkerState, WorkerStatus

COLUMNS = 100
BAR = 20
"""Characters of a progress bar."""
WORKER_COLUMNS = ("stage", "worker", "node", "place", "block", "for", "done", "failed", "memory", "state")

STAGE_STYLES = {
    StageState.DONE: "green",
    StageState.RUNNING: "cyan",
    StageState.WAITING: "cyan",
    StageState.FAILED: "red",
    StageState.STOPPED: "yellow",
    StageState.STALE: "yellow",
    StageState.NOT_BEGUN: "dim",
}
WORKER_STYLES = {WorkerState.DIED: "red", WorkerState.LEFT: "yellow", WorkerState.SLOW: "yellow"}


@dataclass(frozen=True)
class TerminalStyle:
    """What a terminal can show.

    Attributes:
        colour: whether it knows colours.
        full, rest: characters of a progress bar.
    """

    colour: bool = False
    full: str = "#"
    rest: str = "."


def render_text(status: RunStatus, style: TerminalStyle, all_workers: bool = False) -> str:
    """The status as text.

    Args:
        status: of a run.
        style: what the terminal can show.
        all_workers: list all of them.
    """
    parts: list[Sequence[str | Text]] = [
        list(_head(status)),
        list(_trainings(status, style)),
        list(_stages(status, style)),
        _workers(status, style, all_workers),
        list(_failures(status)),
        list(_what_next(status)),
    ]
    texts = ["\n".join(_lines(part, style)) for part in parts if part]
    return "\n\n".join(texts) + "\n"


def _lines(part: Sequence[str | Text], style: TerminalStyle) -> Iterator[str]:
    """Lines as the terminal shows them; those that are text already stay as they are."""
    for line in part:
        yield from rendered(line, style.colour) if isinstance(line, Text) else [line]


def _head(status: RunStatus) -> Iterator[Text]:
    yield Text(f"run     {status.directory}")
    when = clock.strftime("%Y-%m-%d %H:%M:%S", clock.localtime(status.time))
    yield Text.assemble("state   ", (phrases.headline(status), "bold"), f" ({when})")
    was_killed = status.driver.state is DriverState.GONE and status.driver.ended is None
    text = phrases.format_driver(status.driver, status.time)
    yield Text.assemble("driver  ", (text, "yellow" if was_killed else ""))


def _stages(status: RunStatus, style: TerminalStyle) -> Iterator[Text]:
    width = _width_of_names(status)
    for stage in status.stages:
        yield _progress_line(stage, phrases.format_blocks(stage), style, width)
        yield from _details(phrases.details(stage, status.time), width)


def _trainings(status: RunStatus, style: TerminalStyle) -> Iterator[Text]:
    width = _width_of_names(status)
    for training in status.trainings:
        yield _progress_line(training, phrases.format_iterations(training), style, width)
        yield from _details(phrases.training_details(training, status.time), width)


def _width_of_names(status: RunStatus) -> int:
    return max(len(part.name) for part in status.parts)


def _details(parts: Sequence[str], width: int) -> Iterator[Text]:
    indent = " " * (width + 2)
    for line in _filled(parts, COLUMNS - len(indent)):
        yield Text(indent).append(line, "dim")


def _progress_line(part: StageStatus | TrainingStatus, count: str, style: TerminalStyle, width: int) -> Text:
    full = int(part.fraction * BAR)
    bar = style.full * full + style.rest * (BAR - full)
    percent = f"{phrases.percent(part):>7}" if part.is_begun else " " * 7
    return Text.assemble(
        f"{part.name:<{width}}  ",
        (f"{part.state.value:<9}", STAGE_STYLES[part.state]),
        f"  {bar}  {percent}  {count}".rstrip(),
    )


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


def _workers(status: RunStatus, style: TerminalStyle, all_workers: bool) -> list[str | Text]:
    """A summary, a table of the workers to show, and the logs of those in trouble."""
    if not status.workers:
        return []
    lines: list[str | Text] = [Text(f"workers: {phrases.worker_summary(status.workers)}")]
    shown = phrases.workers_to_show(status.workers, all_workers)
    if not shown:
        return lines
    table = table_of(WORKER_COLUMNS, map(_worker_row, shown), header="dim")
    lines += [f"  {line}" for line in rendered(table, style.colour)]
    for worker in shown:
        if worker.log and worker.state.is_trouble:
            lines.append(Text(f"    worker {worker.worker} log: {worker.log}"))
    hidden = sum(worker.state.is_trouble or worker.state.is_present for worker in status.workers) - len(shown)
    if hidden > 0:
        lines.append(Text(f"  and {hidden} more; --all lists all", "dim"))
    return lines


def _worker_row(worker: WorkerStatus) -> tuple[str | Text, ...]:
    return (
        worker.stage,
        worker.worker,
        worker.host,
        phrases.format_place(worker),
        "" if worker.block is None else str(worker.block),
        duration(worker.block_seconds) if worker.block is not None else "",
        f"{worker.done:,}",
        f"{worker.failed:,}" if worker.failed else "",
        memory_size(worker.memory) if worker.memory else "",
        Text(phrases.format_worker_state(worker), WORKER_STYLES.get(worker.state, "")),
    )


def _failures(status: RunStatus) -> Iterator[Text]:
    if not status.failures:
        return
    yield Text("newest errors:", "red")
    for failure in status.failures:
        yield from (Text(f"  {line}") for line in failure.description.splitlines())
        yield Text(f"      logs: {failure.logs}")


def _what_next(status: RunStatus) -> Iterator[Text]:
    for stage in phrases.results(status):
        yield Text(f"segmentation: {stage.output}")
    if phrases.results(status):
        yield Text(f"look at it:   {phrases.view_command(status)}")
    if status.command:
        yield Text.assemble("to go on:     ", (status.command, "bold"))
