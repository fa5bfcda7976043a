"""What every step shares, script or console command: arguments, logging, and how errors become exit statuses."""

from __future__ import annotations

import argparse
import logging
import os
import select
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

from .command_names import A_SCRIPT, note_what_the_user_typed
from .config import load_config
from .errors import UserError
from .run import Run
from .stop_signals import sigterm_interrupts
from .terminal import replace_what_cannot_be_printed

Work = Callable[[Run, argparse.Namespace], int | None]

logger = logging.getLogger("emdistill")


def run_script(
    description: str,
    work: Work,
    *,
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
    arguments: Sequence[str] | None = None,
) -> NoReturn:
    """Parse `[config.json] --set … --dry-run --debug`, run `work`, and exit.

    Exit status 0: done; 1: some blocks failed (`work` returned 1); 2: a `UserError`, printed as one line; 130: Ctrl-C
    or SIGTERM. Any other exception is a bug and keeps its traceback.
    """
    options = parse_arguments(description, add_arguments, arguments)
    exit_after(lambda: work(Run(load_config(options.config, options.set)), options), options.debug)


@sigterm_interrupts()
def exit_after(work: Callable[[], int | None], debug: bool = False) -> NoReturn:
    """Run `work`, which needs no config, and exit as `run_script` does.

    Args:
        work: gives the exit status; None for 0.
        debug: log more, and keep the tracebacks of users' errors.
    """
    replace_what_cannot_be_printed()
    note_what_the_user_typed(A_SCRIPT)  # unless the console command was
    start_logging(debug)
    try:
        status = work()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        sys.exit(0)
    except UserError as error:
        if debug:
            raise
        exit_with(error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command continues where it stopped\n")
        sys.exit(130)
    sys.exit(status or 0)


def _reader_is_gone() -> bool:
    """Whether nobody reads the output any more, as after `| head`; what is left of it is dropped then."""
    output = select.poll()
    output.register(sys.stdout, 0)
    is_gone = any(event & select.POLLERR for _, event in output.poll(0))
    if is_gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_gone


def parse_arguments(
    description: str,
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
    arguments: Sequence[str] | None = None,
) -> argparse.Namespace:
    """The arguments common to all steps, plus those that `add_arguments` declares."""
    replace_what_cannot_be_printed()
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", nargs="?", default="config.json", help="config file (default: ./config.json)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a config value, for example --set cluster.workers=8; repeatable",
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, say what would be done, and stop")
    parser.add_argument("--debug", action="store_true", help="log more, and show tracebacks of users' errors")
    if add_arguments is not None:
        add_arguments(parser)
    return parser.parse_args(arguments)


def exit_with(error: UserError) -> NoReturn:
    """Print a user's error as one line and exit with status 2."""
    sys.stderr.write(f"error: {error}\n")
    sys.exit(2)


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at the moment: under a progress bar, lines go above it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def start_logging(debug: bool) -> None:
    """Send the product's log lines to standard error; libraries only speak up from warnings on."""
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in ("emdistill", "pipeline"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.INFO)
