"""How it stands with a block-wise run, from its files: while it goes on, has ended, was killed, or has not begun."""

from .as_html import write_page
from .as_json import status_document
from .as_text import Look, render_text
from .model import DriverStatus, FailureStatus, Life, RunStatus, StageStatus, Standing, State, WorkerStatus
from .pace import History
from .read_run import RunStages, read_run_status

__all__ = [
    "DriverStatus",
    "FailureStatus",
    "History",
    "Life",
    "Look",
    "RunStages",
    "RunStatus",
    "StageStatus",
    "Standing",
    "State",
    "WorkerStatus",
    "read_run_status",
    "render_text",
    "status_document",
    "write_page",
]
