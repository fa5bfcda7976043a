"""The status of a run as one self-contained page."""

from __future__ import annotations

import time as clock
from pathlib import Path

from ...pages import html_environment
from ...run import replaced_file
from ...units import duration, memory_size
from . import phrases
from .model import RunStatus


def write_page(path: Path, status: RunStatus, seconds: float, all_workers: bool = False) -> None:
    """Write the page in one step: a reader sees the old or the new one, never half of one.

    Args:
        path: the file.
        status: of a run.
        seconds: after which a browser reads the page again, until the run is over.
        all_workers: list all workers.

    Raises:
        UserError: the folder cannot be written.
    """
    with replaced_file(path) as file:
        file.write(render_page(status, seconds, all_workers).encode(errors="replace"))


def render_page(status: RunStatus, seconds: float, all_workers: bool = False) -> str:
    """The page; all text from outside is escaped."""
    shown = phrases.workers_to_show(status.workers, all_workers)
    present = sum(worker.state.is_trouble or worker.state.is_present for worker in status.workers)
    template = html_environment("pipeline.engine.status").get_template("status.html")
    return template.render(
        status=status,
        title=Path(status.directory).name,
        refresh=None if status.is_over else max(1, round(seconds)),
        when=clock.strftime("%Y-%m-%d %H:%M:%S", clock.localtime(status.time)),
        phrases=phrases,
        workers=shown,
        hidden=max(0, present - len(shown)),
        duration=duration,
        memory_size=memory_size,
    )
