"""How it stands with a block-wise run, from its files: while it goes on, has ended, was killed, or has not begun."""

from .document import status_document
from .facts import DriverStatus, FailureStatus, Life, RunStatus, StageStatus, Standing, State, WorkerStatus
from .pace import History
from .page import write_page
from .reading import read_status
from .text import Look, render_text

__all__ = [
    "DriverStatus",
    "FailureStatus",
    "History",
    "Life",
    "Look",
    "RunStatus",
    "StageStatus",
    "Standing",
    "State",
    "WorkerStatus",
    "read_status",
    "render_text",
    "status_document",
    "write_page",
]
