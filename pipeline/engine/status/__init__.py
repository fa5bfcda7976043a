"""The status of a block-wise run, from its files: while it goes on, has ended, was killed, or has not begun."""

from .as_html import write_page
from .as_json import status_document
from .as_text import TerminalStyle, render_text
from .model import (
    DriverState,
    DriverStatus,
    FailureStatus,
    RunStatus,
    StageState,
    StageStatus,
    WorkerState,
    WorkerStatus,
)
from .pace import History
from .read_run import RunStages, read_run_status

__all__ = [
    "DriverState",
    "DriverStatus",
    "FailureStatus",
    "History",
    "RunStages",
    "RunStatus",
    "StageState",
    "StageStatus",
    "TerminalStyle",
    "WorkerState",
    "WorkerStatus",
    "read_run_status",
    "render_text",
    "status_document",
    "write_page",
]
