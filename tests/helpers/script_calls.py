"""Commands called in this process, as a user calls them: with what they print, say and return, and a limit on time."""

from __future__ import annotations

import contextlib
import io
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from types import FrameType

import pytest

from pipeline import cli
from pipeline.command_names import module_of

SECONDS = 60
"""No command of a test may take longer."""


@dataclass
class Called:
    """What a command did.

    Attributes:
        status: its exit status; None if an exception came through.
        output: what it printed to standard output.
        told: lines of warnings, of errors, and on standard error.
        trace: of an exception that came through.
    """

    status: int | None = None
    output: str = ""
    told: list[str] = field(default_factory=list)
    trace: str = ""

    def complaint(self) -> str:
        """What is wrong with how it ended; empty if nothing is."""
        if self.trace:
            return self.trace
        if self.status not in (0, 1, 2):
            return f"exit status {self.status}"
        text = "\n".join(self.told)
        if "Traceback" in text or '    File "' in text:
            return f"a traceback: {text}"
        told = [line for line in self.told if "look: " not in line and not line.startswith("    ")]
        allowed = 3 if self.status == 2 else 7  # failed blocks are listed, up to three with their places
        if self.status and len(told) > allowed:
            return f"{len(told)} lines: {text}"
        if self.status == 2 and not any(line.startswith("error: ") for line in self.told):
            return f"no line that says what is wrong: {text}"
        return ""


class TooSlow(BaseException):
    """A command that does not end."""


def call(step: str, *arguments: str) -> Called:
    """Call the command of a step."""
    called, records = Called(), list[str]()
    errors, output = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, _limited():
        patch.setattr(sys, "argv", [step, *arguments])
        patch.setattr(cli, "start_logging", lambda debug: _collect(records))
        main: Callable[[], None] = import_module(f"pipeline.commands.{module_of(step)}").main
        try:
            with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
                main()
        except SystemExit as exit_:
            called.status = exit_.code if isinstance(exit_.code, int) else 1
        except BaseException:
            called.trace = traceback.format_exc()
    called.output, called.told = output.getvalue(), [*records, *errors.getvalue().splitlines()]
    return called


def _collect(records: list[str]) -> None:
    """Keep warnings and errors in place of printing them."""
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.extend(record.getMessage().splitlines())  # type: ignore[method-assign]
    logging.getLogger().handlers = [handler]
    for name in ("emdistill", "pipeline"):
        logging.getLogger(name).setLevel(logging.INFO)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    former = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)
